/**
 * Loaded before every test file. Two files run at once, but of those that need the kernel to
 * themselves only one: a file waits here until it holds the turn, and keeps it until its process
 * ends. The turn is a listening socket with an abstract name, which the kernel takes back from
 * a process that ends in any way; there is nothing to clean up.
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
    // Held open: its end shows the waiting process that this one has ended.
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
 * Also returns when the holder ended before the connection was there, or before it had taken it from the
 * queue, which is a reset: `once` would reject for that.
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
