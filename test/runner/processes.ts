/**
 * The processes of a run: those with its mark in their environment, which children inherit, and the
 * descendants of those, which may have another environment.
 */
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const markVariable = 'TEST_OF';
const turnPollMs = 100;

/** From now on, children of this process have the mark of its run. */
export function markChildren(): void {
  process.env[markVariable] = String(process.pid);
}

/** Lets the run's own children clean up, if there is time for it, then ends everything that is left. */
export async function endProcesses(graceMs: number): Promise<void> {
  // A process whose parent ends first is no longer found by its parent.
  const before = findProcesses();
  for (const { pid, parent } of before) {
    if (parent === process.pid && graceMs > 0) signalTo(pid, 'SIGTERM');
  }
  const left = (): readonly Process[] => [...before.filter(isThere), ...findProcesses()];
  const untilMs = performance.now() + graceMs;
  while (performance.now() < untilMs && left().length > 0) await delay(50);
  for (const { pid } of left()) signalTo(pid, 'SIGKILL');
}

/**
 * Waits until no other process of the machine has the turn: a listening socket with an abstract name, which the kernel
 * releases when this process ends, however that is.
 */
export async function takeTurn(name: string): Promise<void> {
  for (;;) {
    const server = createServer();
    server.listen(`\0${name}`);
    try {
      await once(server, 'listening');
      server.unref();
      return;
    } catch {
      await delay(turnPollMs);
    }
  }
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Since boot, in ticks: another process with the number has another one. */
  readonly startedAt: string;
  readonly isMarked: boolean;
}

function findProcesses(): readonly Process[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readProcess(Number(name)) ?? []);
  const found = new Map(all.filter(({ isMarked }) => isMarked).map((each) => [each.pid, each]));
  for (let before = -1; before < found.size;) {
    before = found.size;
    for (const each of all) if (found.has(each.parent)) found.set(each.pid, each);
  }
  found.delete(process.pid);
  return [...found.values()];
}

function isThere({ pid, startedAt }: Process): boolean {
  return readProcess(pid)?.startedAt === startedAt;
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** Undefined if it has ended, or is a zombie. */
function readProcess(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // After the name, which may contain blanks.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state = '', parent = ''] = fields;
    if (state === 'Z' || state === 'X') return undefined;
    const environment = `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`;
    const isMarked = environment.includes(`\0${markVariable}=${process.pid}\0`);
    return { pid, parent: Number(parent), startedAt: fields[19] ?? '', isMarked };
  } catch {
    return undefined;
  }
}
