/** How a redirect of several parts goes on when one of them fails, and keeps its operations apart. */

export interface ErrorCollector {
  /** Runs one part; keeps its failure and goes on with `undefined`. */
  run<T>(part: () => Promise<T>): Promise<T | undefined>;
  /** Throws the first failure kept, if any. */
  throwFirst(): void;
}

export function collectErrors(): ErrorCollector {
  const failures: unknown[] = [];
  return {
    run: async (part) => {
      try {
        return await part();
      } catch (error) {
        failures.push(error);
        return undefined;
      }
    },
    throwFirst: () => {
      if (failures.length > 0) throw failures[0];
    },
  };
}

/** One at a time, in the order of the calls: a verify must not see an installation half done. */
export function createMutex(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const turn = last.then(work, work);
    last = turn;
    return turn;
  };
}
