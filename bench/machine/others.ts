/** CPU use of other processes during a measurement, from /proc. */
import { readFileSync } from 'node:fs';
import { statOf } from './alone.ts';

/** Length of a clock tick in /proc, independent of the kernel's own. */
const tickMs = 10;

interface Reading {
  readonly atMs: number;
  /** Of all processors, without interrupts: they cannot be attributed to a process. */
  readonly busyMs: number;
  /** Of this process and its child processes that have ended. */
  readonly ownMs: number;
}

function read(): Reading {
  const [line = ''] = readFileSync('/proc/stat', 'latin1').split('\n');
  const [user = 0, nice = 0, system = 0] = line.trim().split(/\s+/).slice(1).map(Number);
  const own = statOf(process.pid).slice(11, 15).map(Number);
  const sum = (ticks: readonly number[]): number => ticks.reduce((all, each) => all + each, 0);
  return {
    atMs: performance.now(),
    busyMs: sum([user, nice, system]) * tickMs,
    ownMs: sum(own) * tickMs,
  };
}

/**
 * Starts counting. @returns the CPUs used by others; the caller's child processes must have ended.
 */
export function watchOthers(): () => number {
  const before = read();
  return () => {
    const after = read();
    const usedMs = after.busyMs - before.busyMs - (after.ownMs - before.ownMs);
    const processors = usedMs / (after.atMs - before.atMs);
    return Math.max(0, Math.round(processors * 100) / 100);
  };
}
