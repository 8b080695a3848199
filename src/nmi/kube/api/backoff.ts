/** Back-off before a retry. Pure; the caller passes the random number. */

export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** A longer `Retry-After` of the server is capped to this. */
const maxRetryAfterMs = 300_000;

/**
 * 1. Doubling from `baseMs` up to `capMs`; `failures` counts from 1.
 * 2. Half of it is jitter, so that nodes that failed together do not retry together.
 * 3. A `Retry-After` of the server is always honored, plus up to a quarter as jitter: the server
 *    sends the same value to all clients.
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
