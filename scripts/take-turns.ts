/**
 * Loaded before every test file. Two files run at once, but only one of those that need exclusive
 * use of the kernel: such a file waits here for a lock and holds it until its process ends. The
 * lock is a listening socket with an abstract name. The kernel releases it however the process
 * ends, so nothing needs to be cleaned up.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { isExclusive } from './test-kinds.ts';

const turn = '\0entra-pod-identity-kernel-tests';

if (isExclusive(process.argv[1] ?? '')) {
  while (!(await take())) await holderEnds();
}

async function take(): Promise<boolean> {
  const server = createServer((waiting) => {
    // Stays open: the end of the connection signals the waiting process that this one has ended.
    waiting.on('error', () => waiting.destroy()).unref();
  });
  server.listen(turn);
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
function holderEnds(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  connect(turn)
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
