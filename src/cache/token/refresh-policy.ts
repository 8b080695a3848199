/**
 * When a token is refreshed. Pure; `random` is from 0 up to 1.
 *
 * 1. At half of the life that it had on arrival, or at the time named by its source if that is
 *    earlier, with a jitter of 10 %, so that tokens that arrived together are not refreshed
 *    together.
 * 2. At least 10 s after its arrival: IMDS returns the same token from its own cache, which
 *    shortens the interval at each refresh; the minimum prevents a loop.
 * 3. A token with too little life on arrival is fetched again within a second, since its source may
 *    have returned the last seconds of a cached one. After three such tokens in a row the source
 *    has no better, and rules 1 and 2 apply.
 * 4. After failures the back-off doubles from 5 s up to 5 min, and half of it is jitter.
 */
const dueShare = 0.5;
const dueSpread = 0.1;
const shortestPauseMs = 10_000;
const soonMs = 400;
const soonTries = 3;
const firstRetryMs = 5_000;
const longestRetryMs = 5 * 60_000;

/**
 * @param namedMs milliseconds until the refresh time named by the source; Infinity for none.
 * @param short consecutive tokens with too little life, this one included; 0 if this one has
 *   enough.
 */
export function refreshDelayMs(
  lifeMs: number,
  namedMs: number,
  short: number,
  random: number,
): number {
  if (short > 0 && short <= soonTries) return soonMs * (1 + random);
  const dueMs = Math.min(lifeMs * dueShare, namedMs);
  return Math.max(shortestPauseMs, dueMs * (1 - dueSpread + 2 * dueSpread * random));
}

/** @param failures consecutive failures, 1 or more. */
export function retryDelayMs(failures: number, random: number): number {
  const pauseMs = Math.min(longestRetryMs, firstRetryMs * 2 ** (failures - 1));
  return (pauseMs / 2) * (1 + random);
}
