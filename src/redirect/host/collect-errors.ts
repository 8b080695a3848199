/** Runs all parts of an operation even if some fail, and throws the first error at the end. */

export function collectErrors() {
  const errors: unknown[] = [];
  return {
    /** Runs one part; on an error, stores it and returns `undefined`. */
    run: async <T>(part: () => Promise<T>): Promise<T | undefined> => {
      try {
        return await part();
      } catch (error) {
        errors.push(error);
        return undefined;
      }
    },
    /** Throws the first stored error, if any. */
    throwFirst: (): void => {
      if (errors.length > 0) throw errors[0];
    },
  };
}
