/** Waits for an effect of another process, without a guessed duration. */
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Runs `check` until it no longer throws, with pauses of `pauseMs`, and returns its value.
 * @throws the last error of `check` once `maxMs` have passed.
 */
export async function eventually<T>(
  check: () => T | Promise<T>,
  maxMs = 5_000,
  pauseMs = 10,
): Promise<T> {
  const deadlineMs = performance.now() + maxMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() >= deadlineMs) throw error;
    }
    await delay(pauseMs);
  }
}
