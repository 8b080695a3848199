/**
 * A turn that one process of the machine has at a time: a listening socket with an abstract name. The
 * kernel releases it however the process ends, so nothing needs to be cleaned up.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Waits until no other process has the turn. It ends with this process. */
export async function takeTurn(name: string): Promise<void> {
  const address = `\0${name}`;
  while (!(await take(address))) await holderEnds(address);
}

async function take(address: string): Promise<boolean> {
  const server = createServer((waiting) => {
    // Stays open: the end of the connection signals the waiting process that this one has ended.
    waiting.on('error', () => waiting.destroy()).unref();
  });
  server.listen(address);
  try {
    await once(server, 'listening');
  } catch (err) {
    if (isAddressInUse(err)) return false;
    throw err;
  }
  server.unref();
  return true;
}

/**
 * Also returns if the holder ended before the connection was established, or before it accepted the
 * connection. The latter is a reset, for which `once` would reject.
 */
function holderEnds(address: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  connect(address)
    .on('error', () => undefined)
    .once('close', () => {
      resolve();
    })
    .resume();
  return promise;
}

function isAddressInUse(err: unknown): boolean {
  return err instanceof Error && 'code' in err && err.code === 'EADDRINUSE';
}
