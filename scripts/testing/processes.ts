/**
 * The processes of a run, found by a variable of their environment, which children inherit: a process
 * whose parent has ended is among them too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

export const markVariable = 'NMI_TEST_OF';

export function markOf(file: string): string {
  return `${process.pid}:${file}`;
}

/** Without an argument, of every file of this run. */
function findProcesses(mark = `${process.pid}:`): readonly number[] {
  const wanted = `\0${markVariable}=${mark}`;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => environmentOf(name).includes(wanted))
    .map(Number);
}

export function killProcesses(mark?: string): void {
  for (const pid of findProcesses(mark)) signalTo(pid, 'SIGKILL');
}

/** Lets the run's own children clean up for a moment, then ends everything that is left. */
export async function endProcesses(graceMs = 5_000): Promise<void> {
  for (const pid of findProcesses()) {
    if (parentOf(pid) === process.pid) signalTo(pid, 'SIGTERM');
  }
  const untilMs = performance.now() + graceMs;
  while (performance.now() < untilMs && findProcesses().length > 0) await delay(50);
  killProcesses();
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

/** Empty if the process has ended or is another user's. */
function environmentOf(pid: string): string {
  try {
    return `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`;
  } catch {
    return '';
  }
}
