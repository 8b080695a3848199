/** A whole run of test files: in which order, with what, and its one report. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isWithin, kindOf, type Programs, type Size } from './kinds.ts';
import { runJobs, type Builds, type Job } from './queue.ts';
import { Report } from './report.ts';
import { runFile, type FileRun } from './run-file.ts';
import { renderTimes, type FileTime } from './times.ts';

/** So that a hang ends as a failure that shows the file. */
const timeoutMs = 1_200_000;
const kernelsTimeoutMs = 10_800_000;
const progressMs = 60_000;
/** Of the table at the end. */
const shortMs = 1_000;

export interface SuiteOptions {
  readonly root: string;
  /** From the root. */
  readonly files: readonly string[];
  readonly size: Size;
  /** Of an earlier run, by file. */
  readonly knownMs: Readonly<Record<string, number>>;
  readonly builds: Builds & {
    readonly skipped: readonly string[];
    readonly failed: readonly string[];
  };
  /** How long files may still wait for those programs when nothing else is left to run. */
  readonly patienceMs: (programs: readonly Programs[]) => number;
  readonly timeoutMs?: number;
  /** Nothing starts after it, and there is no summary. */
  readonly stop: AbortSignal;
  readonly output: NodeJS.WritableStream;
  readonly log: (line: string) => void;
}

export interface SuiteResult {
  readonly isPassed: boolean;
  readonly times: readonly FileTime[];
}

export function planJobs({
  root,
  files,
  size,
  knownMs,
}: Pick<SuiteOptions, 'root' | 'files' | 'size' | 'knownMs'>): readonly Job[] {
  return files.map((file) => {
    const { isExclusive, usualSeconds } = kindOf(file);
    const needs = needsOf(file, size, readFileSync(join(root, file), 'utf8'));
    const expectedMs = knownMs[file] ?? usualSeconds * 1_000;
    return { file, isExclusive, needs, expectedMs };
  });
}

/** Of its kind, and of what it calls. */
export function needsOf(file: string, size: Size, text: string): readonly Programs[] {
  const { name, needs } = kindOf(file);
  const olderFrom: Size = /^describeOnEveryVersion\(/m.test(text) ? 'all' : 'long';
  return [
    ...needs,
    ...(name === 'cluster' && isWithin(olderFrom, size) ? (['older'] as const) : []),
    ...(/^import .*\binstallKit\b/m.test(text) ? (['clients'] as const) : []),
  ];
}

export async function runSuite(options: SuiteOptions): Promise<SuiteResult> {
  const { builds, log, output, size, stop } = options;
  const jobs = planJobs(options);
  const report = new Report(output);
  const times: FileTime[] = [];
  const running = new Map<string, number>();
  // A file's output shows only when it has ended.
  const progress = setInterval(() => {
    const now = performance.now();
    const names = [...running].map(([file, at]) => `${file} (${((now - at) / 1000).toFixed(0)} s)`);
    log(`${times.length} of ${jobs.length} files have run; running: ${names.join(', ') || 'none'}`);
  }, progressMs);
  const late = await runJobs({
    jobs,
    builds,
    stop,
    patienceMs: (job) => options.patienceMs(job.needs),
    run: async ({ file }) => {
      running.set(file, performance.now());
      const limitMs = options.timeoutMs ?? timeoutOf(file, size);
      const result = await tryRun(file, limitMs, options.root, size);
      running.delete(file);
      times.push(timeOf(file, result));
      if (result instanceof Error) await report.fail(`${file}: ${result.message}`);
      else await report.add(file, result.events);
    },
  });
  clearInterval(progress);
  if (stop.aborted) return { isPassed: false, times: [] };
  for (const what of builds.failed) await report.fail(`the programs for ${what} cannot be built`);
  const skipped = late.map(({ file }) => `SKIPPED: ${file}: its programs are still being built\n`);
  await report.print(
    [
      `\n${renderTimes(times, shortMs)}\n`,
      ...builds.skipped.map((line) => `${line}\n`),
      ...skipped,
    ].join(''),
  );
  return { isPassed: await report.end(), times };
}

async function tryRun(
  file: string,
  limitMs: number,
  cwd: string,
  size: Size,
): Promise<FileRun | Error> {
  try {
    return await runFile(file, { cwd, timeoutMs: limitMs, environment: { TEST_SIZE: size } });
  } catch (err) {
    return err instanceof Error ? err : new Error(String(err));
  }
}

function timeoutOf(file: string, size: Size): number {
  return kindOf(file).name === 'kernels' && size === 'long' ? kernelsTimeoutMs : timeoutMs;
}

function timeOf(file: string, run: FileRun | Error): FileTime {
  const { wallMs, usage } = run instanceof Error ? { wallMs: 0, usage: undefined } : run;
  const waitedMs = usage?.waitedMs ?? 0;
  const { name } = kindOf(file);
  return { file, kind: name, wallMs: wallMs - waitedMs, processorMs: usage?.processorMs, waitedMs };
}
