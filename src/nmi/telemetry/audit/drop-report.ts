/** Logs lost records: the first at once, further ones once a minute with their number. */
import type { Clock } from '../../../base/time/clock.ts';
import type { Log } from '../../../base/log.ts';

export interface DropReportOptions {
  /** Path of the file that lacks them. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
}

const reportEveryMs = 60_000;

/** @returns a function that takes a number of records and the code of the error. */
export function createDropReport({
  path,
  clock,
  log,
}: DropReportOptions): (count: number, code: string) => void {
  let dropped = 0;
  let lastCode = '';
  let isArmed = false;

  function report(): void {
    isArmed = false;
    if (dropped === 0) return;
    log.error({ path, code: lastCode, count: dropped }, 'audit records dropped');
    dropped = 0;
    isArmed = true;
    clock.schedule(reportEveryMs, report);
  }

  return (count, code) => {
    dropped += count;
    lastCode = code;
    if (!isArmed) report();
  };
}
