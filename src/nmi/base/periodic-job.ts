/** Work that is done again and again, one run after the other, until it is disposed. */
import type { Clock } from '../../cache/clock.ts';

/** Does one run; must not reject. Returns milliseconds until the next, or undefined to end. */
export type PeriodicRun = () => number | undefined | Promise<number | undefined>;

/** @param firstMs until the first run. A run that disposal overtakes is the last. */
export function startPeriodicJob(clock: Clock, firstMs: number, run: PeriodicRun): Disposable {
  let isDisposed = false;
  let disarm: () => void;
  const arm = (delayMs: number): void => {
    disarm = clock.schedule(delayMs, () => {
      const next = run();
      if (next instanceof Promise) void next.then(armNext);
      else armNext(next);
    });
  };
  const armNext = (delayMs: number | undefined): void => {
    if (!isDisposed && delayMs !== undefined) arm(delayMs);
  };
  arm(firstMs);
  return {
    [Symbol.dispose]: () => {
      isDisposed = true;
      disarm();
    },
  };
}
