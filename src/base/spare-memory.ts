/**
 * Returns unused memory to the kernel. Otherwise memory freed by V8's compiler and collector threads stays in
 * the arenas of the C library: 5 to 12 MB after a load, and another megabyte at each later recompilation. And
 * some 25 MB of the program's file stay mapped that only the start needed. It takes 0.2 to 0.8 ms (Node 26.10,
 * November 2026).
 */
import type { Clock } from './time/clock.ts';
import type { Log } from './log.ts';
import { startPeriodicJob } from './time/periodic-job.ts';

const everyMs = 60_000;

/** @param giveBack is synchronous. Called once a minute, until it throws. */
export function giveBackSpareMemory(clock: Clock, log: Log, giveBack: () => void): Disposable {
  return startPeriodicJob(clock, everyMs, () => {
    try {
      giveBack();
      return everyMs;
    } catch (err) {
      log.debug({ err }, 'failed to return spare memory to the kernel');
      return undefined;
    }
  });
}
