/**
 * Which test file runs next. At most three run at once: a file uses two thirds of a processor on
 * average, and two processors are the least that a run has to expect. At most one of them is exclusive:
 * exclusive files have a queue of their own, and the other places go on with the rest. Long files
 * start first. Beside an exclusive file of several minutes only one other file runs, and none on a node: the
 * lab measures how long pods wait under attack.
 */
import type { Programs } from './kinds.ts';

const places = 3;
const longMs = 180_000;

export interface Job {
  /** The file, or the folder of several. */
  readonly name: string;
  /** They run in one process, from the root. */
  readonly files: readonly string[];
  readonly isExclusive: boolean;
  /** Not before these are there. */
  readonly needs: readonly Programs[];
  readonly expectedMs: number;
}

/** Undefined if a place has to stay empty until another job ends or programs are there. */
export function nextJob(
  waiting: readonly Job[],
  running: readonly Job[],
  isThere: (programs: Programs) => boolean,
): Job | undefined {
  const isLong = ({ isExclusive, expectedMs }: Job): boolean => isExclusive && expectedMs >= longMs;
  if (running.length >= (running.some(isLong) ? 2 : places)) return undefined;
  const possible = waiting
    .filter(({ needs }) => needs.every(isThere))
    .toSorted((a, b) => b.expectedMs - a.expectedMs);
  // A node under load takes a processor of its own.
  const isQuiet = !running.some(isLong);
  const shared = possible.find(
    (job) => !job.isExclusive && (isQuiet || !job.needs.includes('node')),
  );
  if (running.some((job) => job.isExclusive)) return shared;
  const exclusive = possible.find((job) => job.isExclusive);
  if (exclusive === undefined) return shared;
  if (!isLong(exclusive)) return exclusive;
  if (running.length > 1) return undefined;
  return running.some(({ needs }) => needs.includes('node')) ? shared : exclusive;
}

/** Programs that are being built while the first tests run. */
export interface Builds {
  isThere(programs: Programs): boolean;
  /** Resolves when more of them are there, or after that time. */
  change(withinMs: number): Promise<void>;
}

export interface Schedule {
  readonly jobs: readonly Job[];
  readonly builds: Builds;
  readonly run: (job: Job) => Promise<void>;
  /** How long a job may still wait for programs when nothing else is left to run. */
  readonly patienceMs: (job: Job) => number;
  /** Nothing starts after it. */
  readonly stop: AbortSignal;
}

/** Runs all jobs; returns those whose programs were not there in time. */
export async function runJobs(schedule: Schedule): Promise<readonly Job[]> {
  const { jobs, builds, run, patienceMs, stop } = schedule;
  let waiting = [...jobs];
  const skipped: Job[] = [];
  const running = new Map<Job, Promise<void>>();
  const isThere = (programs: Programs): boolean => builds.isThere(programs);
  while (!stop.aborted && (waiting.length > 0 || running.size > 0)) {
    const job = nextJob(waiting, [...running.keys()], isThere);
    if (job !== undefined) {
      waiting = waiting.filter((each) => each !== job);
      const ended = run(job).finally(() => running.delete(job));
      running.set(job, ended);
      continue;
    }
    if (running.size === 0) {
      const late = waiting.filter((each) => patienceMs(each) <= 0);
      skipped.push(...late);
      waiting = waiting.filter((each) => !late.includes(each));
      if (waiting.length === 0) break;
    }
    const leftMs = waiting.map(patienceMs).filter((each) => each > 0);
    await Promise.race([...running.values(), builds.change(Math.min(60_000, ...leftMs))]);
  }
  await Promise.all(running.values());
  return skipped;
}
