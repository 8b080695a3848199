/** How long to wait before trying again. Pure; the random number comes from the caller. */

export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** A longer `Retry-After` of the server is capped to this. */
const maxRetryAfterMs = 300_000;

/**
 * 1. Doubling from `baseMs` up to `capMs`; `failures` counts from 1.
 * 2. Half of it is random, so nodes that failed together do not return together.
 * 3. What the server asked for is what it gets, however often it asked already. Up to a quarter of
 *    it comes on top: a server says the same second to everybody.
 */
export function backoffMs(
  backoff: Backoff,
  failures: number,
  random: number,
  retryAfterMs = 0,
): number {
  if (retryAfterMs > 0) {
    return Math.max(backoff.baseMs, Math.min(retryAfterMs, maxRetryAfterMs) * (1 + random / 4));
  }
  const ceiling = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(failures - 1, 30));
  return ceiling * (0.5 + random / 2);
}
