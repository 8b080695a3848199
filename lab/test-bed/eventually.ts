/** Waits for an effect of another process, without a guessed duration. */
import { setTimeout as delay } from 'node:timers/promises';

const maxPauseMs = 250;

/**
 * Runs `check` until it no longer throws, and returns its value. Pauses of `pauseMs`, or of three times
 * what the check took: it must not take the processor from what it waits for.
 * @throws the error of a `check` that began after `maxMs`: the machine may stand still during one or between two.
 */
export async function eventually<T>(
  check: () => T | Promise<T>,
  maxMs = 5_000,
  pauseMs = 10,
): Promise<T> {
  const deadlineMs = performance.now() + maxMs;
  for (;;) {
    const startMs = performance.now();
    try {
      return await check();
    } catch (error) {
      if (startMs >= deadlineMs) throw error;
    }
    await delay(Math.max(pauseMs, Math.min(maxPauseMs, 3 * (performance.now() - startMs))));
  }
}
