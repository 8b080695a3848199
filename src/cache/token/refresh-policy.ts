/**
 * When to ask the upstream again. Pure; `random` gives numbers from 0 up to 1.
 *
 * 1. A token is due at half of the life it had on arrival, or at the time its source named if that
 *    is earlier, give or take a tenth: tokens that came together do not go together.
 * 2. Never sooner than ten seconds after it came: a source that answers with the same token again,
 *    as IMDS does from its own cache, is asked ever more often towards the end, but not in a loop.
 * 3. One that came with too little life is asked for again within a second, since its source may have
 *    handed out the last of an old one. After three such tokens in a row the source has no better,
 *    and rules 1 and 2 hold.
 * 4. After failures the pause doubles from 5 seconds up to 5 minutes, and half of it is random.
 */
const dueShare = 0.5;
const dueSpread = 0.1;
const shortestPauseMs = 10_000;
const soonMs = 400;
const soonTries = 3;
const firstRetryMs = 5_000;
const longestRetryMs = 5 * 60_000;

/**
 * @param namedMs how far away the time is that the source named; Infinity for none.
 * @param short tokens with too little life in a row, this one included; 0 for one with enough.
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

/** @param failures how many in a row, 1 or more. */
export function retryDelayMs(failures: number, random: number): number {
  const pauseMs = Math.min(longestRetryMs, firstRetryMs * 2 ** (failures - 1));
  return (pauseMs / 2) * (1 + random);
}
