/**
 * The processes of a run: those with its mark in their environment, which children inherit, and the
 * descendants of those, which may have another environment.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

export const markVariable = 'TEST_OF';

export function markOf(file: string): string {
  return `${process.pid}:${file}`;
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Since boot, in ticks: another process with the number has another one. */
  readonly startedAt: string;
  readonly isMarked: boolean;
}

/** Without an argument, of every file of this run. */
function findProcesses(mark = `${process.pid}:`): readonly Process[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readProcess(Number(name), mark) ?? []);
  const found = new Map(all.filter(({ isMarked }) => isMarked).map((each) => [each.pid, each]));
  for (let before = -1; before < found.size;) {
    before = found.size;
    for (const each of all) if (found.has(each.parent)) found.set(each.pid, each);
  }
  found.delete(process.pid);
  return [...found.values()];
}

/** Ends a file's processes, or all of this run. */
export function killProcesses(mark?: string): void {
  for (const { pid } of findProcesses(mark)) signalTo(pid, 'SIGKILL');
}

/** Lets the run's own children clean up for a moment, then ends everything that is left. */
export async function endProcesses(graceMs = 5_000): Promise<void> {
  // A process whose parent ends first is no longer found by its parent.
  const before = findProcesses();
  for (const { pid, parent } of before) {
    if (parent === process.pid) signalTo(pid, 'SIGTERM');
  }
  const left = (): readonly Process[] => [...before.filter(isThere), ...findProcesses()];
  const untilMs = performance.now() + graceMs;
  while (performance.now() < untilMs && left().length > 0) await delay(50);
  for (const { pid } of left()) signalTo(pid, 'SIGKILL');
}

function isThere({ pid, startedAt }: Process): boolean {
  return readProcess(pid, '')?.startedAt === startedAt;
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** Undefined if it has ended, or is a zombie. */
function readProcess(pid: number, mark: string): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // After the name, which may contain blanks.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state = '', parent = ''] = fields;
    if (state === 'Z' || state === 'X') return undefined;
    const isMarked = environmentOf(pid).includes(`\0${markVariable}=${mark}`);
    return { pid, parent: Number(parent), startedAt: fields[19] ?? '', isMarked };
  } catch {
    return undefined;
  }
}

/** Empty if the process has ended or is another user's. */
function environmentOf(pid: number): string {
  try {
    return `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`;
  } catch {
    return '';
  }
}
