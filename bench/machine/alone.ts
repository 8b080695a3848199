/**
 * Whether a run has the machine to itself: one run at a time holds a file of a known name, and a
 * machine at work cannot be measured on.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Above this load average of the last minute others are at work. */
const quietLoad = 0.5;

const lockFile = join(tmpdir(), 'nmi-bench.lock');

export interface Turn extends Disposable {
  /** Of the run that has the machine already; undefined: this one has it. */
  readonly otherPid: number | undefined;
}

/** Takes the file, from a run that has ended without giving it back too. */
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
 * Waits for what was done before, such as a build, to leave the average of the last minute.
 * Returns at the latest after the limit, quiet or not.
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

/** What speaks against publishing a run that begins now; undefined: nothing. */
export function obstacleTo(load: number, turn: Turn): string | undefined {
  if (turn.otherPid !== undefined) return `another run is at it (pid ${turn.otherPid})`;
  if (load > quietLoad) return `the load of the machine is ${load}, above ${quietLoad}`;
  return undefined;
}

/** The process that holds the file; undefined when it has ended, or nothing can be read of it. */
function readHolder(file: string): number | undefined {
  try {
    const text = readFileSync(file, 'latin1');
    const pid = Number(text.split(' ')[0]);
    return nameOf(pid) === text ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** The pid and when it began: a pid alone may be somebody else's by now. @throws without such one. */
function nameOf(pid: number): string {
  return `${pid} ${statOf(pid)[19] ?? ''}`;
}

/** The fields of /proc/PID/stat after the name, which may contain spaces: `state` first. */
export function statOf(pid: number): readonly string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}
