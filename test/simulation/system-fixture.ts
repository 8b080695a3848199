/** The parts of a machine that the hand-over uses, real or simulated, and what its tests share. */
import assert from 'node:assert/strict';
import type { EventEmitter } from 'node:events';
import type fsPromises from 'node:fs/promises';
import { join } from 'node:path';
import type { NativeModule } from '../../src/redirect/native/addon.ts';

/** As much of a socket as the hand-over uses. */
interface LocalSocket extends EventEmitter {
  readonly destroyed: boolean;
  resume(): unknown;
  destroy(): unknown;
}

interface LocalServer extends EventEmitter {
  readonly listening: boolean;
  maxConnections: number;
  listen(path: string): unknown;
  close(done?: (error?: Error) => void): unknown;
}

export interface System {
  readonly native: Pick<
    NativeModule,
    | 'openListener'
    | 'listenerAddress'
    | 'setListening'
    | 'duplicate'
    | 'connectLocal'
    | 'sendNote'
    | 'receiveNote'
  >;
  readonly createServer: (options: { readonly pauseOnConnect: true }) => LocalServer;
  readonly connect: (options: { readonly path: string }) => LocalSocket;
  readonly openSocket: (descriptor: number) => LocalSocket;
  readonly closeSync: (descriptor: number) => void;
  readonly files: Pick<typeof fsPromises, 'lstat' | 'rename' | 'unlink' | 'mkdir'>;
  readonly delay: (ms: number) => Promise<unknown>;
  /** Where it may listen. */
  readonly address: { readonly ip: string; readonly port: number };
  /** An empty folder. */
  readonly folder: string;
}

export const codeOf = (error: unknown): unknown => (error as NodeJS.ErrnoException).code;

/** The code that the call fails with. */
export function refusal(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

export async function eventually<T>({ delay }: System, find: () => T | undefined): Promise<T> {
  for (let tries = 0; tries < 1_000; tries += 1) {
    const found = find();
    if (found !== undefined) return found;
    await delay(5);
  }
  throw new Error('it never happens');
}

export function once(emitter: EventEmitter, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    emitter.once(name, resolve);
    if (name !== 'error') emitter.once('error', reject);
  });
}

export async function openServer(system: System, name = 'a.sock') {
  const path = join(system.folder, name);
  const server = system.createServer({ pauseOnConnect: true });
  server.listen(path);
  await once(server, 'listening');
  const accepted: LocalSocket[] = [];
  server.on('connection', (socket: LocalSocket) => {
    accepted.push(socket);
    socket.on('error', () => socket.destroy());
  });
  const close = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  return { path, server, accepted, close };
}

export async function openConnection(system: System) {
  const opened = await openServer(system);
  const near = system.native.connectLocal(opened.path);
  const far = await eventually(system, () => opened.accepted[0]);
  return { ...opened, near, far, farDescriptor: descriptorOf(far) };
}

export function descriptorOf(socket: LocalSocket): number {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
  assert.ok(fd >= 0);
  return fd;
}
