/** Runs all parts of an operation even if some fail, and throws the first error at the end. */

export interface ErrorCollector {
  /** Runs one part; on an error, stores it and returns `undefined`. */
  run<T>(part: () => Promise<T>): Promise<T | undefined>;
  /** Throws the first stored error, if any. */
  throwFirst(): void;
}

export function collectErrors(): ErrorCollector {
  const errors: unknown[] = [];
  return {
    run: async (part) => {
      try {
        return await part();
      } catch (error) {
        errors.push(error);
        return undefined;
      }
    },
    throwFirst: () => {
      if (errors.length > 0) throw errors[0];
    },
  };
}
