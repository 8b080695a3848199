/** Several calls of kubectl at once would each have its login plugin ask the user. */
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
