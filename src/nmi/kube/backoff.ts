/** How long to wait before trying again. Pure; the random number comes from the caller. */

export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** A server that asks for more than this is not believed. */
const maxRetryAfterMs = 300_000;

/**
 * 1. Doubling from `baseMs` up to `capMs`; `failures` counts from 1.
 * 2. Half of it is random, so nodes that failed together do not return together.
 * 3. What the server asked for is the least; the random part comes on top, for the same reason.
 */
export function backoffMs(
  backoff: Backoff,
  failures: number,
  random: number,
  retryAfterMs = 0,
): number {
  const ceiling = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(failures - 1, 30));
  const jittered = ceiling * (0.5 + random / 2);
  if (retryAfterMs <= 0) return jittered;
  return Math.max(jittered, Math.min(retryAfterMs, maxRetryAfterMs) + random * backoff.baseMs);
}
