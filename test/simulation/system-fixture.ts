/** The parts of a machine that an update uses, real or simulated, and what its tests share. */
import type { EventEmitter } from 'node:events';
import type fsPromises from 'node:fs/promises';
import type * as sharedFile from '../../src/nmi/kernel/shared-file.ts';
import type { NativeModule } from '../../src/redirect/native/addon.ts';

interface Server extends EventEmitter {
  listen(where: string | { readonly host: string; readonly port: number }): unknown;
  close(done?: () => void): unknown;
}

interface Socket extends EventEmitter {
  destroy(): unknown;
}

export interface System {
  readonly native: Pick<NativeModule, 'lockFile' | 'isLocked' | 'isListening'>;
  readonly shared: Pick<typeof sharedFile, 'writeShared' | 'readShared' | 'watchShared'>;
  readonly createServer: () => Server;
  readonly connect: (options: { readonly path: string }) => Socket;
  readonly closeSync: (descriptor: number) => void;
  readonly files: Pick<typeof fsPromises, 'lstat' | 'rename' | 'unlink' | 'mkdir'>;
  readonly delay: (ms: number) => Promise<unknown>;
  /** Where it may listen. */
  readonly address: { readonly ip: string; readonly port: number };
  /** An empty folder. */
  readonly folder: string;
}

export const codeOf = (error: unknown): unknown => (error as NodeJS.ErrnoException).code;

export function once(emitter: EventEmitter, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    emitter.once(name, resolve);
    if (name !== 'error') emitter.once('error', reject);
  });
}

/** Listens; the result closes it again. */
export async function openServer(
  { createServer }: System,
  where: Parameters<Server['listen']>[0],
): Promise<() => Promise<void>> {
  const server = createServer();
  server.on('connection', (socket: Socket) => socket.destroy());
  const listening = once(server, 'listening');
  server.listen(where);
  await listening;
  return () => new Promise((resolve) => void server.close(() => resolve()));
}
