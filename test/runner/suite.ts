/**
 * A whole run of test files: in which order, with what, and its one report. Unit tests of one folder
 * share a process: most of a short file's time is that of starting Node and loading what it imports.
 * So do suites of one folder on one server of Kubernetes, which takes seconds of a processor to start.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { IdleProcessors } from './idle-processors.ts';
import { isWithin, kindOf, type Kind, type Programs, type Size } from './kinds.ts';
import { runJobs, type Builds, type Job } from './queue.ts';
import { Report } from './report.ts';
import { runFiles, type FileRun } from './run-files.ts';
import { renderTimes, type FileTime, type KnownTimes } from './times.ts';

/** So that a hang ends as a failure that shows the file. */
const timeoutMs = 1_200_000;
const kernelsTimeoutMs = 10_800_000;
const progressMs = 60_000;
/**
 * Of a processor, for a file that waits most of its time. A run on a machine that is busy with other
 * work measures too little for all files: no more than six or seven may ever run at once on two.
 */
const leastShare = 0.3;
/** A unit test that takes so long shares no process. */
const longSeconds = 20;
/** Of the table at the end. */
const shortMs = 1_000;

export interface SuiteOptions {
  readonly root: string;
  /** From the root. */
  readonly files: readonly string[];
  readonly size: Size;
  /** Whether unit tests of a folder share a process. It saves processor time, and few files end later. */
  readonly sharesProcesses: boolean;
  /** Of earlier runs. */
  readonly known: KnownTimes;
  readonly builds: Builds & {
    readonly skipped: readonly string[];
    readonly failed: readonly string[];
  };
  /** How long files may still wait for those programs when nothing else is left to run. */
  readonly patienceMs: (programs: readonly Programs[]) => number;
  readonly timeoutMs?: number;
  /** Whether it has failed if anything has not run but what a listed capability of the machine is missing for. */
  readonly mustRunAll: boolean;
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
  sharesProcesses,
  known,
}: Pick<SuiteOptions, 'root' | 'files' | 'size' | 'sharesProcesses' | 'known'>): readonly Job[] {
  const textOf = (file: string): string => readFileSync(join(root, file), 'utf8');
  const groups = Object.groupBy(files, (file) =>
    sharesProcesses ? processOf(file, textOf) : file,
  );
  return Object.values(groups).map((group = []): Job => {
    const name = nameOf(group);
    const [first = ''] = group;
    const kind = kindOf(first);
    const needs = needsOf(first, size, textOf(first));
    const expectedMs = known[name]?.wallMs ?? kind.usualSeconds * 1_000 * group.length;
    const processors = processorsOf(kind, known[name]);
    return { name, files: group, isExclusive: kind.isExclusive, needs, processors, expectedMs };
  });
}

/**
 * What measures keeps its claim. The load of others is that of earlier runs, if it is less than usual: what
 * claims more than the short files beside it leave free would wait for the end, and then run alone.
 */
function processorsOf({ processors }: Kind, time: KnownTimes[string] | undefined): number {
  if (processors > 1 || time?.processorMs === undefined) return processors;
  return Math.min(processors, Math.max(leastShare, time.processorMs / time.wallMs));
}

/** Files with the same one share a process. */
function processOf(file: string, textOf: (file: string) => string): string {
  const folder = dirname(file);
  const { name, usualSeconds } = kindOf(file);
  if (name === 'unit' && folder !== '.' && usualSeconds < longSeconds) return folder;
  const isOnSharedServer = name === 'cluster' && /^describeOnNewestVersion\(/m.test(textOf(file));
  return isOnSharedServer ? `${folder} on one server` : file;
}

function nameOf(files: readonly string[]): string {
  const [first = ''] = files;
  const names = kindOf(first).name === 'unit' ? '' : first.replace(/^.*\/[^.]*/, '/*');
  return files.length === 1 ? first : `${dirname(first)}${names} (${files.length} files)`;
}

/** Of its kind, and of what it calls. */
export function needsOf(file: string, size: Size, text: string): readonly Programs[] {
  const { name, needs } = kindOf(file);
  const olderFrom: Size = /^describeOnEveryVersion\(/m.test(text) ? 'all' : 'long';
  return [
    ...needs,
    ...(name === 'cluster' && isWithin(olderFrom, size) ? (['older'] as const) : []),
    ...(/^import .*\binstallKit\b/m.test(text) ? (['clients'] as const) : []),
    ...(/^import .*\bprovideRegistry\b/m.test(text) ? (['registry'] as const) : []),
    ...(/^import .*\bprovideGvisor\b/m.test(text) ? (['gvisor'] as const) : []),
  ];
}

export async function runSuite(options: SuiteOptions): Promise<SuiteResult> {
  const { builds, log, output, stop } = options;
  const jobs = planJobs(options);
  const report = new Report(output);
  const times: FileTime[] = [];
  const running = new Map<string, number>();
  // A file's output shows only when it has ended.
  const progress = setInterval(() => {
    const now = performance.now();
    const names = [...running].map(([name, at]) => `${name} (${((now - at) / 1000).toFixed(0)} s)`);
    log(`${times.length} of ${jobs.length} processes have run; now: ${names.join(', ') || 'none'}`);
  }, progressMs);
  const late = await runJobs({
    jobs,
    builds,
    stop,
    idle: new IdleProcessors(),
    patienceMs: (job) => options.patienceMs(job.needs),
    run: async ({ name, files }) => {
      running.set(name, performance.now());
      const result = await tryRun(files, options);
      running.delete(name);
      times.push(timeOf(name, files, result));
      if (result instanceof Error) await report.fail(`${name}: ${result.message}`);
      else await report.add(name, result.events);
    },
  });
  clearInterval(progress);
  if (stop.aborted) return { isPassed: false, times: [] };
  for (const what of builds.failed) await report.fail(`the programs for ${what} cannot be built`);
  const skipped = [
    ...builds.skipped,
    ...late.map(({ name }) => `SKIPPED: ${name}: its programs are still being built`),
  ];
  if (options.mustRunAll) {
    const reasons = report.skips.unlisted().map((reason) => `SKIPPED: ${reason}`);
    for (const line of [...skipped, ...reasons]) {
      await report.fail(`${line}; test/runner/skips.ts has what may be skipped here`);
    }
  }
  await report.print(
    [`\n${renderTimes(times, shortMs)}\n`, ...skipped.map((line) => `${line}\n`)].join(''),
  );
  const isPassed = await report.end();
  log(report.skips.summary());
  return { isPassed, times };
}

async function tryRun(
  files: readonly string[],
  { root, size, timeoutMs: limitMs = timeoutOf(files, size) }: SuiteOptions,
): Promise<FileRun | Error> {
  try {
    return await runFiles(files, {
      cwd: root,
      timeoutMs: limitMs,
      environment: { TEST_SIZE: size },
    });
  } catch (err) {
    return err instanceof Error ? err : new Error(String(err));
  }
}

function timeoutOf(files: readonly string[], size: Size): number {
  const isLong = size === 'long' && files.some((file) => kindOf(file).name === 'kernels');
  return isLong ? kernelsTimeoutMs : timeoutMs;
}

function timeOf(name: string, [first = '']: readonly string[], run: FileRun | Error): FileTime {
  const { wallMs, usage } = run instanceof Error ? { wallMs: 0, usage: undefined } : run;
  const waitedMs = usage?.waitedMs ?? 0;
  const kind = kindOf(first).name;
  return { file: name, kind, wallMs: wallMs - waitedMs, processorMs: usage?.processorMs, waitedMs };
}
