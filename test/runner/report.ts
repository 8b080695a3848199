/**
 * One report of many runs of Node's test runner: each file's output as a whole, when it has ended, and
 * one summary at the end, in the form of that runner.
 */
import { once } from 'node:events';
import { finished } from 'node:stream/promises';
import { spec, type TestEvent } from 'node:test/reporters';
import { Skips } from './skips.ts';

const countNames = [
  ['tests', 'tests'],
  ['suites', 'suites'],
  ['pass', 'passed'],
  ['fail', 'failed'],
  ['cancelled', 'cancelled'],
  ['skipped', 'skipped'],
  ['todo', 'todo'],
] as const;

type Counts = Record<(typeof countNames)[number][1] | 'topLevel', number>;

export class Report {
  readonly #reporter = new spec();
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
  readonly #startMs = performance.now();
  readonly skips = new Skips();
  #hasPassed = true;
  #lastAdded: Promise<unknown> = Promise.resolve();

  constructor(output: NodeJS.WritableStream) {
    this.#reporter.pipe(output, { end: false });
  }

  /** The events of one file's run; false if it failed. */
  add(file: string, events: readonly TestEvent[]): Promise<boolean> {
    // Two files may end at the same time.
    const added = this.#lastAdded.then(() => this.#add(file, events));
    this.#lastAdded = added;
    return added;
  }

  async #add(file: string, events: readonly TestEvent[]): Promise<boolean> {
    let summary: Extract<TestEvent, { type: 'test:summary' }>['data'] | undefined;
    for (const event of events) {
      if (event.type === 'test:summary' && event.data.file === undefined) summary = event.data;
      // The others are the plan and the counts of that run.
      if (event.data !== undefined && 'file' in event.data && event.data.file !== undefined) {
        this.skips.add(event);
        await this.#write(event);
      }
    }
    if (summary === undefined) return this.fail(`${file}: the test runner ended without a summary`);
    // The type of Node 26 lacks one of them.
    const counts = new Map<string, number>(Object.entries(summary.counts));
    for (const [, name] of countNames) this.#counts[name] += counts.get(name) ?? 0;
    this.#hasPassed &&= summary.success;
    return summary.success;
  }

  /** A failure outside all tests; it counts as one. */
  async fail(message: string): Promise<false> {
    this.#hasPassed = false;
    this.#counts.tests += 1;
    this.#counts.failed += 1;
    await this.print(`FAILED: ${message}\n`);
    return false;
  }

  /** In order with the output of tests. */
  print(message: string): Promise<void> {
    return this.#write({ type: 'test:stdout', data: { file: '', message } });
  }

  /** Prints the summary, then the failed tests; whether all passed. */
  async end(): Promise<boolean> {
    const durationMs = performance.now() - this.#startMs;
    const isPassed = this.#hasPassed && this.#counts.failed + this.#counts.cancelled === 0;
    for (const [name, count] of countNames) {
      await this.#writeCount(`${name} ${this.#counts[count]}`);
    }
    await this.#writeCount(`duration_ms ${durationMs}`);
    const data = { success: isPassed, counts: this.#counts, duration_ms: durationMs };
    await this.#write({ type: 'test:summary', data: { ...data, file: undefined } });
    this.#reporter.end();
    await finished(this.#reporter);
    return isPassed;
  }

  #writeCount(message: string): Promise<void> {
    return this.#write({
      type: 'test:diagnostic',
      data: { nesting: 0, message, level: 'info' },
    });
  }

  async #write(event: TestEvent): Promise<void> {
    if (!this.#reporter.write(event)) await once(this.#reporter, 'drain');
  }
}
