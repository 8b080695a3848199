/**
 * A whole run of test files by Node's test runner: what runs beside what, and one report with the output of each file
 * as a whole.
 */
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { run } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';
import { kinds, kindOf, laneOf, needsOf, type Lane, type Programs, type Size } from './kinds.ts';
import { Skips } from './skips.ts';

const progressMs = 60_000;
const mostLongFiles = 10;
/** Files of every kind wait for something half of their time. */
const atOnce: Readonly<Record<Lane, number>> = {
  alone: 1,
  kernel: 1,
  shared: 2 * Math.max(2, availableParallelism()),
};

export interface SuiteOptions {
  readonly root: string;
  /** From the root. */
  readonly files: readonly string[];
  readonly size: Size;
  readonly builds: {
    readonly skipped: readonly string[];
    readonly failed: readonly string[];
    readonly change: Promise<void>;
    isThere(programs: Programs): boolean;
  };
  /** Resolves when files no longer wait for programs. */
  readonly lateness: Promise<void>;
  /** Of one file, so that a hang ends as a failure that shows it. */
  readonly timeoutMs: number;
  /** Whether it has failed if anything has not run but what a listed capability of the machine is missing for. */
  readonly mustRunAll: boolean;
  /** Nothing starts after it, and there is no summary. */
  readonly stop: AbortSignal;
  readonly output: NodeJS.WritableStream;
  readonly log: (line: string) => void;
}

/** Whether all passed. */
export async function runSuite(options: SuiteOptions): Promise<boolean> {
  const { builds, files, log, mustRunAll, output, stop } = options;
  const report = new Report(output);
  const progress = setInterval(() => log(report.progress()), progressMs);
  const late: string[] = [];
  for (const lanes of [['alone'], ['kernel', 'shared']] as const) {
    const ended = lanes.map((lane) => runLane(lane, options, report));
    late.push(...(await Promise.all(ended)).flat());
  }
  clearInterval(progress);
  if (stop.aborted) return false;
  for (const what of builds.failed) await report.fail(`the programs for ${what} cannot be built`);
  const skipped = [
    ...builds.skipped,
    ...late.map((file) => `SKIPPED: ${file}: its programs are still being built`),
  ];
  const reasons = report.skips.unlisted().map((reason) => `SKIPPED: ${reason}`);
  for (const line of mustRunAll ? [...skipped, ...reasons] : []) {
    await report.fail(`${line}; test/runner/skips.ts has what may be skipped here`);
  }
  log(`${files.length} files; the longest: ${report.longest()}`);
  await report.print(skipped.map((line) => `${line}\n`).join(''));
  const isPassed = await report.end();
  log(report.skips.summary());
  return isPassed;
}

/** Returns the files whose programs were not there in time. */
async function runLane(
  lane: Lane,
  { root, files, size, builds, lateness, timeoutMs, stop }: SuiteOptions,
  report: Report,
): Promise<readonly string[]> {
  let isLate = false;
  void lateness.then(() => (isLate = true));
  const orderOf = (file: string): number => kinds.indexOf(kindOf(file));
  let left = files
    .filter((file) => laneOf(file) === lane)
    .toSorted((one, other) => orderOf(one) - orderOf(other));
  while (left.length > 0 && !stop.aborted) {
    const ready = left.filter((file) =>
      needsOf(file, size, root).every((each) => builds.isThere(each)),
    );
    if (ready.length === 0) {
      if (isLate) break;
      await Promise.race([builds.change, lateness]);
      continue;
    }
    left = left.filter((file) => !ready.includes(file));
    const events = run({
      files: ready,
      cwd: root,
      concurrency: atOnce[lane],
      timeout: timeoutMs,
      signal: stop,
      execArgv: [`--import=${join(import.meta.dirname, 'test-process.ts')}`],
      env: {
        ...process.env,
        TEST_SIZE: size,
        TEST_TIMEOUT_MS: String(timeoutMs),
        // Most of a short test's time is that of compiling what it imports: 0.9 s of processor time become 0.5 s.
        NODE_COMPILE_CACHE: join(root, '.cache/compile'),
        // Kubernetes' programs live for a minute, and memory is not what this machine lacks.
        GOGC: '400',
      },
    });
    await report.add(events as AsyncIterable<TestEvent>);
  }
  return left;
}

const countNames = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const;

type Counts = Record<(typeof countNames)[number] | 'topLevel', number>;

/** The reports of several runs of Node's test runner as one, in the form of that runner. */
class Report {
  readonly #reporter = new spec();
  readonly #startMs = performance.now();
  readonly #counts: Counts = {
    tests: 0,
    suites: 0,
    passed: 0,
    failed: 0,
    cancelled: 0,
    skipped: 0,
    todo: 0,
    topLevel: 0,
  };
  readonly #running = new Set<string>();
  readonly #seconds = new Map<string, number>();
  readonly skips = new Skips();
  #hasPassed = true;
  #lastWritten: Promise<void> = Promise.resolve();

  constructor(output: NodeJS.WritableStream) {
    this.#reporter.pipe(output, { end: false });
  }

  progress(): string {
    const running = [...this.#running].join(', ') || 'none';
    return `${this.#seconds.size} files have run; now: ${running}`;
  }

  longest(): string {
    const sorted = [...this.#seconds].toSorted(([, one], [, other]) => other - one);
    const chosen = sorted.slice(0, mostLongFiles);
    return chosen.map(([file, seconds]) => `${file} ${seconds.toFixed(0)} s`).join(', ');
  }

  /** Node reports the tests of one file after those of another, and their end by a summary of the file. */
  async add(events: AsyncIterable<TestEvent>): Promise<void> {
    let ofFile: TestEvent[] = [];
    let isWhole = false;
    for await (const event of events) {
      if (event.type === 'test:dequeue' && isFile(event.data)) this.#running.add(event.data.name);
      if (event.type === 'test:complete' && isFile(event.data)) {
        this.#running.delete(event.data.name);
        this.#seconds.set(event.data.name, event.data.details.duration_ms / 1000);
      }
      if (event.type === 'test:summary' && event.data.file === undefined) {
        isWhole = true;
        this.#hasPassed &&= event.data.success;
        // The type of Node 26 lacks one of them.
        const counts = new Map<string, number>(Object.entries(event.data.counts));
        for (const name of countNames) this.#counts[name] += counts.get(name) ?? 0;
      } else if (
        event.data !== undefined &&
        'file' in event.data &&
        event.data.file !== undefined
      ) {
        ofFile.push(event);
        if (event.type !== 'test:summary') continue;
      }
      await this.#write(ofFile);
      ofFile = [];
    }
    if (!isWhole) await this.fail('the test runner ended without a summary');
  }

  /** A failure outside all tests; it counts as one. */
  async fail(message: string): Promise<void> {
    this.#hasPassed = false;
    this.#counts.tests += 1;
    this.#counts.failed += 1;
    await this.print(`FAILED: ${message}\n`);
  }

  /** In order with the output of tests. */
  print(message: string): Promise<void> {
    return this.#write([{ type: 'test:stdout', data: { file: '', message } }]);
  }

  /** Prints the summary, then the failed tests; whether all passed. */
  async end(): Promise<boolean> {
    const durationMs = performance.now() - this.#startMs;
    const success = this.#hasPassed && this.#counts.failed + this.#counts.cancelled === 0;
    const lines = [
      ...countNames.map((name) => `${name.replace(/^(pass|fail)ed$/, '$1')} ${this.#counts[name]}`),
      `duration_ms ${durationMs}`,
    ];
    const data = { success, counts: this.#counts, duration_ms: durationMs, file: undefined };
    await this.#write([
      ...lines.map((message): TestEvent => ({
        type: 'test:diagnostic',
        data: { nesting: 0, message, level: 'info' },
      })),
      { type: 'test:summary', data },
    ]);
    this.#reporter.end();
    await finished(this.#reporter);
    return success;
  }

  /** What two lanes have at the same time is written one after the other. */
  #write(events: readonly TestEvent[]): Promise<void> {
    this.#lastWritten = this.#lastWritten.then(async () => {
      for (const event of events) {
        this.skips.add(event);
        if (!this.#reporter.write(event)) await once(this.#reporter, 'drain');
      }
    });
    return this.#lastWritten;
  }
}

/** Of the file itself, and not of a test in it. */
function isFile({ name, nesting }: { readonly name: string; readonly nesting: number }): boolean {
  return nesting === 0 && name.endsWith('.test.ts');
}
