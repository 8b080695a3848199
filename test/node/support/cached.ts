/** The constant parts of a test node: made once, in the tests' cache. */
import { join } from 'node:path';
import { isKept, keep, keyOf, testCache } from '../../support/test-cache.ts';

export const nodeCache = join(testCache, 'node');

/**
 * A folder or file of that name if the hash of its maker's inputs is the same, otherwise a new one.
 */
export function provideCached(
  name: string,
  inputs: readonly string[],
  make: (path: string) => void,
  unusedDays?: number,
): string {
  const path = join(nodeCache, `${name}-${keyOf(inputs)}`);
  if (isKept(path)) return path;
  const startedMs = performance.now();
  process.stderr.write(`making ${name} of the test node, once\n`);
  const makeIn = (work: string): string => {
    make(join(work, name));
    return join(work, name);
  };
  keep(path, makeIn, unusedDays);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  process.stderr.write(`made ${name} in ${seconds} s\n`);
  return path;
}
