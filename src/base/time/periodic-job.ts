/** Repeats work, one run after the other, until its disposal. */
import type { Clock } from './clock.ts';

/** One run; must not reject. Returns milliseconds until the next run, or undefined to end. */
export type PeriodicRun = () => number | undefined | Promise<number | undefined>;

/** @param firstMs milliseconds until the first run. A run during the disposal is the last one. */
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
