/** The clock of a simulated process. */
import type { Clock } from '../../src/base/time/clock.ts';
import type { Process } from './machine.ts';
import { epochMs } from './limits.ts';

/** @param aheadMs of the wall clock, against the true time. */
export function clockOf(process: Process, aheadMs: () => number = () => 0): Clock {
  const { scheduler } = process.machine;
  return {
    wallMs: () => Math.floor(epochMs + scheduler.nowMs + aheadMs()),
    monotonicMs: () => scheduler.nowMs,
    schedule: (delayMs, work) => process.after(Math.max(0, delayMs), 'clock', work),
  };
}
