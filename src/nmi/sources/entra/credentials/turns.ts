/**
 * Long computations, one small piece at a time. Between two pieces the event loop goes round once,
 * so that the rest of the agent waits for one piece however many computations there are, and each of
 * them gets its turn.
 */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();
  #lastApart: Promise<unknown> = Promise.resolve();

  /** Runs `piece` when those who asked before had theirs. */
  async take<T>(piece: () => T | Promise<T>): Promise<T> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#last = promise;
    await before;
    try {
      return await piece();
    } finally {
      setImmediate(resolve, undefined);
    }
  }

  /** The same for long work on other threads, in a line of its own: nobody above waits for it. */
  async takeApart<T>(piece: () => Promise<T>): Promise<T> {
    const before = this.#lastApart;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#lastApart = promise;
    await before;
    try {
      return await piece();
    } finally {
      resolve(undefined);
    }
  }
}
