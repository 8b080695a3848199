/**
 * Where a login plugin may ask the user, the first call of kubectl runs alone: several at once
 * would each ask.
 */
import type { Io } from '../base/io.ts';

/** @param mayAsk whether the configuration of kubectl names a login plugin. */
export function firstAlone(run: Io['run'], mayAsk: () => Promise<boolean>): Io['run'] {
  let first: Promise<unknown> | undefined;
  return async (...call) => {
    if (first === undefined) {
      const done = run(...call);
      first = mayAsk().then((waits) => (waits ? done : undefined));
      return done;
    }
    await first;
    return run(...call);
  };
}
