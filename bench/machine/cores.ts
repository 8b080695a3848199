/** Server and load on a core each, where the machine lets us. */
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';

export type Core = 'server' | 'load';

const numbers: Readonly<Record<Core, string>> = { server: '0', load: '1' };

export const hasAffinity =
  cpus().length > 1 && spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;

/** The words that start a program on a core; unchanged where that cannot be. */
export function onCore(
  core: Core,
  words: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return hasAffinity ? ['taskset', '-c', numbers[core], ...words] : words;
}
