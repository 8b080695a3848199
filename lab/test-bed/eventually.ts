/** Waits for an effect of another process, without a guessed duration. */
import { setTimeout as delay } from 'node:timers/promises';

const maxPauseMs = 250;
/** What waits for ten seconds needs no answer within ten milliseconds. */
const pauseShare = 0.05;

/**
 * Runs `check` until it no longer throws, and returns its value. Pauses of `pauseMs`, of three times what
 * the check took, or of a twentieth of the wait: it must not take the processor from what it waits for. A
 * pause counts as long as it was meant to be: where the machine stands still, the other process does too.
 * @throws the error of a `check` that began after `maxMs`: the machine may stand still during one, too.
 */
export async function eventually<T>(
  check: () => T | Promise<T>,
  maxMs = 5_000,
  pauseMs = 10,
): Promise<T> {
  let waitedMs = 0;
  for (;;) {
    const isLast = waitedMs >= maxMs;
    const startMs = performance.now();
    try {
      return await check();
    } catch (error) {
      if (isLast) throw error;
    }
    const tookMs = performance.now() - startMs;
    const fairMs = Math.max(3 * tookMs, pauseShare * waitedMs);
    const nextMs = Math.max(pauseMs, Math.min(maxPauseMs, fairMs));
    await delay(nextMs);
    waitedMs += tookMs + nextMs;
  }
}
