/** A copy of the tree in which faults are made, one at a time, and the tests run that run the place. */
import { spawn } from 'node:child_process';
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { laneOf } from '../runner/kinds.ts';
import { compiles } from './compiler.ts';
import { measure, testsAt, type End, type TestCoverage } from './coverage.ts';
import { apply, type Mutant } from './mutants.ts';

const root = join(import.meta.dirname, '../..');
/** Timeout of one test. A fault may make it hang, loop or use all memory: each is a failure. */
const testTimeoutMs = 30_000;
/** Timeout of one file, for a loop that its own process cannot end. */
const fileTimeoutMs = 90_000;
/** It may wait for its turn. */
const exclusiveTimeoutMs = 300_000;
/** Of a place that everything runs, the tests that say most about it. */
const maxTests = 40;
const nodeOptions = [
  '--max-old-space-size=1024',
  `--test-timeout=${testTimeoutMs}`,
  '--test-force-exit',
];
/** Results of builds and installations; linked because tests need them. */
const linked = ['node_modules', 'dist'];
const leftOut = new Set([...linked, '.git', '.cache']);

/**
 * `late` if a test did not end in time, which a busy machine can also cause. `rejected` by the compiler: no fault.
 * `unknown` when a test fails without it, too.
 */
export type Verdict = 'killed' | 'late' | 'survived' | 'rejected' | 'unknown';

export interface Outcome {
  readonly verdict: Verdict;
  /** The test that failed, or the number of those that did not. */
  readonly note: string;
}

export class Trial implements Disposable {
  readonly #folder: string;
  /** Whether a test passes without a fault. */
  readonly #passes = new Map<string, boolean>();
  /** Ends the running test, whose process group gets no signals of the terminal. */
  #end: () => void = () => undefined;

  constructor(folder: string) {
    this.#folder = folder;
    const filter = (path: string): boolean => !leftOut.has(path.slice(root.length + 1));
    cpSync(root, folder, { recursive: true, filter });
    for (const name of linked) symlinkSync(join(root, name), join(folder, name));
  }

  read(file: string): string {
    return readFileSync(join(this.#folder, file), 'utf8');
  }

  /** @param results of earlier measurements. */
  measure(test: string, results: string): Promise<TestCoverage> {
    return measure(test, results, this.#folder, (env) => this.#run(test, env));
  }

  async run(mutant: Mutant, coverage: readonly TestCoverage[]): Promise<Outcome> {
    const { file } = mutant;
    const path = join(this.#folder, file);
    const text = this.read(file);
    const mutated = apply(text, mutant);
    const tests = testsAt(coverage, file, text, mutant.start).slice(0, maxTests);
    for (const test of tests) {
      writeFileSync(path, mutated);
      const end = await this.#run(test);
      writeFileSync(path, text);
      if (end === 'passed') continue;
      if (!(await this.#passesAlone(test)))
        return { verdict: 'unknown', note: `${test} fails without a fault` };
      return { verdict: end === 'late' ? 'late' : 'killed', note: test };
    }
    writeFileSync(path, mutated);
    const isAccepted = compiles(this.#folder, file);
    writeFileSync(path, text);
    // Not for an error that is there without the fault, too.
    const isRejected = !isAccepted && compiles(this.#folder, file);
    return { verdict: isRejected ? 'rejected' : 'survived', note: `${tests.length} tests` };
  }

  [Symbol.dispose](): void {
    this.#end();
  }

  async #passesAlone(test: string): Promise<boolean> {
    const known = this.#passes.get(test);
    if (known !== undefined) return known;
    // Once more: on a busy machine a test may time out.
    const passes = (await this.#run(test)) === 'passed' || (await this.#run(test)) === 'passed';
    this.#passes.set(test, passes);
    return passes;
  }

  #run(test: string, env: Readonly<Record<string, string>> = {}): Promise<End> {
    const turn = laneOf(test) !== 'shared' ? ['--import=./test/runner/test-process.ts'] : [];
    const child = spawn(process.execPath, [...nodeOptions, ...turn, test], {
      cwd: this.#folder,
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, NODE_COMPILE_CACHE: join(root, '.cache/compile'), ...env },
      // A separate process group, so that processes started by a test end with it.
      detached: true,
    });
    let isLate = false;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      isLate ||= text.includes('test timed out after');
    });
    return new Promise((resolve, reject) => {
      this.#end = () => {
        if (child.pid === undefined) return;
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          // The process has ended.
        }
      };
      const timer = setTimeout(
        () => {
          isLate = true;
          this.#end();
        },
        turn.length > 0 ? exclusiveTimeoutMs : fileTimeoutMs,
      );
      child.once('error', reject);
      // Processes that the test left hold its output open.
      child.once('exit', () => this.#end());
      child.once('close', (code) => {
        clearTimeout(timer);
        this.#end = () => undefined;
        resolve(isLate ? 'late' : code === 0 ? 'passed' : 'failed');
      });
    });
  }
}
