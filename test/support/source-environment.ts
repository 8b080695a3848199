/**
 * Of a process that runs our sources: tools on the PATH, and the cache of compiled code that
 * `test/runner/suite.ts` names, with which a start takes half of the processor time.
 */
export const sourceEnvironment: Readonly<Record<string, string | undefined>> = {
  PATH: process.env['PATH'],
  NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'],
};
