/** Server and load on a separate core each, where the machine allows it. */
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';

export type Core = 'server' | 'load';

const numbers: Readonly<Record<Core, string>> = { server: '0', load: '1' };

export const hasAffinity =
  cpus().length > 1 && spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0;

/** The command line that starts a program on a core; unchanged where that is not possible. */
export function onCore(
  core: Core,
  words: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return hasAffinity ? ['taskset', '-c', numbers[core], ...words] : words;
}
