/** In place of node:fs/promises: folders and sockets are those of the simulated machine. The effect is at any time between the call and its result. */
import { currentProcess, type Process } from '../machine.ts';
import { asError } from '../scheduler.ts';
import { statAs, type StatOptions } from './fs.ts';

export * from 'node:fs/promises';

function later<T>(work: (owner: Process) => T): Promise<T> {
  const owner = currentProcess();
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      try {
        const result = work(owner);
        owner.soon('file result', () => resolve(result));
      } catch (error) {
        owner.soon('file failure', () => reject(asError(error)));
      }
    };
    owner.soon('file', settle);
  });
}

export function lstat(path: string, options: StatOptions = {}) {
  return later((owner) => statAs(owner, path, options));
}

export function rename(from: string, to: string): Promise<void> {
  return later((owner) => owner.machine.files.rename(from, to));
}

export function unlink(path: string): Promise<void> {
  return later((owner) => owner.machine.files.unlink(path));
}

export function mkdir(path: string, { mode }: { readonly mode: number }): Promise<void> {
  return later((owner) => owner.machine.files.make(path, owner, mode));
}
