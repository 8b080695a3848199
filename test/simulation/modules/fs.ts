/** In place of node:fs: descriptors and sockets are those of the simulated process. */
import { currentProcess, type Process } from '../machine.ts';

export * from 'node:fs';

export function closeSync(descriptor: number): void {
  currentProcess().close(descriptor);
}

/** Only files that processes share are removed by the code of a simulated machine. */
export function rmSync(path: string): void {
  currentProcess().machine.shared.remove(path);
}

export interface StatOptions {
  readonly bigint?: boolean;
}

export function lstatSync(path: string, options: StatOptions = {}) {
  return statAs(currentProcess(), path, options);
}

export function statAs({ machine }: Process, path: string, { bigint = false }: StatOptions) {
  const { number, mode, listener } = machine.files.find(path);
  const ino = bigint ? number : Number(number);
  return { ino, mode, uid: process.geteuid?.(), isSocket: () => listener !== undefined };
}
