/** Logs errors that can only be bugs, with their stacks; a pod may cause any number of them. */
import type { Log } from '../log.ts';
import type { Clock } from '../time/clock.ts';
import { LogBudget } from './log-budget.ts';

/** Lines in a minute before further ones are only counted. */
const most = 20;

export function bugReporter(log: Log, clock: Clock, message: string): (error: unknown) => void {
  const budget = new LogBudget({ clock, onOthers: () => undefined });
  const reportMore = (count: number): void => log.error({ count }, `${message}, further ones`);
  return (error) => {
    if (!budget.allows(message, most, reportMore)) return;
    log.error({ err: error instanceof Error ? error.stack : 'unknown' }, message);
  };
}
