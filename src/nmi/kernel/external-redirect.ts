/**
 * The redirect of an agent that has no right to make one: `nmi redirect run` in another container
 * keeps the kernel's side, and this one reads what it pinned.
 */
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { openEbpfReader, type EbpfReaderOptions } from '../../redirect/ebpf/ebpf.ts';
import { RedirectError, type Redirect } from '../../redirect/redirect.ts';
import { DEFAULT_TARGET } from '../../redirect/target.ts';

/** The two containers start at the same time. */
const patienceMs = 30_000;
const pollMs = 200;

/** Waits in `prepare` until the address is there to listen on, or the signal aborts. */
export function openPinnedRedirect(options: EbpfReaderOptions): Redirect {
  const { listenIp } = options.target ?? DEFAULT_TARGET;
  return {
    ...openEbpfReader(options),
    prepare: async (signal) => {
      const deadlineMs = performance.now() + patienceMs;
      for (;;) {
        if (signal?.aborted === true || (await isHeld(listenIp))) return;
        if (performance.now() > deadlineMs) {
          const message = `${listenIp} is on no link: nmi redirect run has to make it`;
          throw new RedirectError('TIMEOUT', 'wait for the address', message);
        }
        await delay(pollMs);
      }
    },
  };
}

/** A link without ports or carrier is not among what Node lists as interfaces; binding tells. */
function isHeld(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port: 0 }, () => server.close(() => resolve(true)));
  });
}
