/** Description of the machine, published with every number. */
import { spawnSync } from 'node:child_process';
import { arch, cpus, loadavg, release, totalmem } from 'node:os';
import type { Machine } from '../core/results.ts';
import { hasAffinity } from './cores.ts';

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryMb: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    arch: arch(),
    node: process.version,
    hasAffinity,
  };
}

/** Commit of the sources; with a plus sign when files differ from it. */
export function describeCommit(): string {
  return git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+');
}

/** Load average of the last minute. */
export function describeLoad(): number {
  return Math.round((loadavg()[0] ?? 0) * 10) / 10;
}

function git(...args: readonly string[]): string {
  const run = spawnSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' });
  return run.status === 0 ? run.stdout.trim() : '';
}
