/** The constant parts of a test node: made once, below `.cache/node`. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { programCache, removeDeadWork } from '../../cluster/support/go-programs.ts';

export const nodeCache = join(programCache, 'node');

/**
 * A folder or file of that name if the hash of its maker's inputs is the same, otherwise a new one.
 * Made under another name and renamed, so that an existing one is complete.
 */
export function provideCached(
  name: string,
  inputs: readonly string[],
  make: (path: string) => void,
): string {
  const key = createHash('sha256').update(inputs.join('\0')).digest('hex').slice(0, 12);
  const path = join(nodeCache, `${name}-${key}`);
  if (existsSync(path)) return path;
  mkdirSync(nodeCache, { recursive: true });
  removeDeadWork(nodeCache);
  const work = mkdtempSync(join(nodeCache, `.work-${process.pid}-`));
  const startedMs = performance.now();
  process.stderr.write(`making ${name} of the test node, once\n`);
  try {
    make(join(work, name));
    for (const other of readdirSync(nodeCache)) {
      if (other.startsWith(`${name}-`)) rmSync(join(nodeCache, other), { recursive: true });
    }
    renameSync(join(work, name), path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  process.stderr.write(`made ${name} in ${seconds} s\n`);
  return path;
}
