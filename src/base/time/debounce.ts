/** Runs work once for a burst of events. */
import type { Clock } from './clock.ts';

export interface Debounced extends Disposable {
  /** Schedules the work after the delay, unless it is scheduled already. */
  trigger(): void;
}

/**
 * @param delayMs from the first trigger after the last run; 0 is the next turn of the event loop.
 */
export function debounce(clock: Clock, delayMs: number, run: () => void): Debounced {
  let disarm: (() => void) | undefined;
  return {
    trigger: () => {
      disarm ??= clock.schedule(delayMs, () => {
        disarm = undefined;
        run();
      });
    },
    [Symbol.dispose]: () => disarm?.(),
  };
}
