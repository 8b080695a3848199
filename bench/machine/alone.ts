/**
 * Checks whether a run has the machine to itself: one run at a time owns a lock file, and a busy
 * machine gives no usable measurement.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Above this load average of the last minute, other processes are running. */
const quietLoad = 0.5;

const lockFile = join(tmpdir(), 'nmi-bench.lock');

export interface Turn extends Disposable {
  /** Pid of the run that has the machine already; undefined: this run has it. */
  readonly otherPid: number | undefined;
}

/** Takes the lock file, also from a run that ended without removing it. */
export function takeTurn(file = lockFile): Turn {
  const own = nameOf(process.pid);
  for (;;) {
    try {
      writeFileSync(file, own, { flag: 'wx' });
      return { otherPid: undefined, [Symbol.dispose]: () => rmSync(file, { force: true }) };
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
    const holder = readHolder(file);
    if (holder !== undefined) return { otherPid: holder, [Symbol.dispose]: () => undefined };
    rmSync(file, { force: true });
  }
}

/**
 * Waits until earlier work, such as a build, no longer affects the average of the last minute.
 * Returns after the limit at the latest, quiet or not.
 */
export async function untilQuiet(options: {
  readonly load: () => number;
  readonly limitMs: number;
  readonly pauseMs: number;
  readonly stop: AbortSignal;
}): Promise<void> {
  const { load, limitMs, pauseMs, stop } = options;
  const deadlineMs = performance.now() + limitMs;
  while (load() > quietLoad && performance.now() < deadlineMs && !stop.aborted) {
    await delay(pauseMs, undefined, { signal: stop }).catch(() => undefined);
  }
}

/** Reason not to publish a run that begins now; undefined: none. */
export function obstacleTo(load: number, turn: Turn): string | undefined {
  if (turn.otherPid !== undefined) return `another run is at it (pid ${turn.otherPid})`;
  if (load > quietLoad) return `the load of the machine is ${load}, above ${quietLoad}`;
  return undefined;
}

/** The process that owns the lock file; undefined if it has ended or the file is unreadable. */
function readHolder(file: string): number | undefined {
  try {
    const text = readFileSync(file, 'latin1');
    const pid = Number(text.split(' ')[0]);
    return nameOf(pid) === text ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** The pid and its start time: a pid alone may have been reused. @throws without such a process. */
function nameOf(pid: number): string {
  return `${pid} ${statOf(pid)[19] ?? ''}`;
}

/** The fields of /proc/PID/stat after the name, which may contain spaces: `state` first. */
export function statOf(pid: number): readonly string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}
