/**
 * Which test file runs next. As many run at once as the machine has processors for, by what each
 * used before, and more while processors are idle: many a file waits for minutes. Two
 * processors are the least that a run has to expect. At most one of them is exclusive: exclusive files
 * have a queue of their own, and the others go on beside it. What measures latency claims most of the
 * machine and starts first, long files before short ones.
 */
import { availableParallelism } from 'node:os';
import type { Programs } from './kinds.ts';

const processors = Math.max(2, availableParallelism());
/** Of sums of such numbers. */
const rounding = 0.01;

export interface Job {
  /** The file, or the folder of several. */
  readonly name: string;
  /** They run in one process, from the root. */
  readonly files: readonly string[];
  readonly isExclusive: boolean;
  /** Not before these are there. */
  readonly needs: readonly Programs[];
  /** How many it uses, or claims. */
  readonly processors: number;
  readonly expectedMs: number;
}

/** Undefined if a place has to stay empty until another job ends or programs are there. */
export function nextJob(
  waiting: readonly Job[],
  running: readonly Job[],
  isThere: (programs: Programs) => boolean,
  { machine = processors, idle = 0 } = {},
): Job | undefined {
  const used = running.reduce((sum, job) => sum + job.processors, 0);
  const isMeasuring = running.some((job) => job.processors > 1);
  const room = isMeasuring ? machine - used : Math.max(machine - used, idle);
  const possible = waiting
    .filter((job) => job.needs.every(isThere))
    .filter((job) => running.length === 0 || job.processors <= room + rounding)
    .toSorted((a, b) => claimOf(b) - claimOf(a) || b.expectedMs - a.expectedMs);
  const exclusive = running.some((job) => job.isExclusive)
    ? undefined
    : possible.find((job) => job.isExclusive);
  return exclusive ?? possible.find((job) => !job.isExclusive);
}

/** Of more than one processor. */
function claimOf(job: Job): number {
  return Math.max(1, job.processors);
}

/** Between two looks whether processors are idle. */
const lookMs = 2_000;

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
  /** Processors of the machine that are idle although all jobs that were started are under way. */
  readonly idle: { read(): number; restart(): void };
  /** How long a job may still wait for programs when nothing else is left to run. */
  readonly patienceMs: (job: Job) => number;
  /** Nothing starts after it. */
  readonly stop: AbortSignal;
}

/** Runs all jobs; returns those whose programs were not there in time. */
export async function runJobs(schedule: Schedule): Promise<readonly Job[]> {
  const { jobs, builds, run, patienceMs, stop, idle } = schedule;
  let waiting = [...jobs];
  const skipped: Job[] = [];
  const running = new Map<Job, Promise<void>>();
  const isThere = (programs: Programs): boolean => builds.isThere(programs);
  while (!stop.aborted && (waiting.length > 0 || running.size > 0)) {
    const job = nextJob(waiting, [...running.keys()], isThere, { idle: idle.read() });
    if (job !== undefined) {
      idle.restart();
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
    await Promise.race([...running.values(), builds.change(Math.min(lookMs, ...leftMs))]);
  }
  await Promise.all(running.values());
  return skipped;
}
