/** A copy of the tree in which faults are made, one at a time, and the tests beside them run. */
import { spawn } from 'node:child_process';
import { cpSync, globSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isExclusive } from '../runner/kinds.ts';
import { compiles } from './compiler.ts';
import { apply, type Mutant } from './mutants.ts';
import { Imports, mirrorsOf, testsBeside } from './tests-beside.ts';

const root = join(import.meta.dirname, '../..');
/** Timeout of one test. A fault may make it hang, loop or use all memory: each is a failure. */
const testTimeoutMs = 30_000;
/** Timeout of one file, for a loop that its own process cannot end. */
const fileTimeoutMs = 90_000;
/** It may wait for its turn. */
const exclusiveTimeoutMs = 300_000;
const nodeOptions = [
  '--max-old-space-size=1024',
  `--test-timeout=${testTimeoutMs}`,
  '--test-force-exit',
];
/** Results of builds and installations; linked because tests need them. */
const linked = ['node_modules', 'dist'];
const leftOut = new Set([...linked, '.git', '.cache']);

/** `rejected` by the compiler: no fault. `unknown` when a test fails without it, too. */
export type Verdict = 'killed' | 'survived' | 'rejected' | 'unknown';

export interface Outcome {
  readonly verdict: Verdict;
  /** The test that failed, or the number of those that did not. */
  readonly note: string;
}

export class Trial implements Disposable {
  readonly #folder: string;
  readonly #tests: readonly string[];
  readonly #imports: Imports;
  /** Whether a test passes without a fault. */
  readonly #passes = new Map<string, boolean>();
  /** Ends the running test, whose process group gets no signals of the terminal. */
  #end: () => void = () => undefined;

  constructor(folder: string) {
    this.#folder = folder;
    const filter = (path: string): boolean => !leftOut.has(path.slice(root.length + 1));
    cpSync(root, folder, { recursive: true, filter });
    for (const name of linked) symlinkSync(join(root, name), join(folder, name));
    this.#tests = globSync('test/**/*.test.ts', { cwd: folder });
    this.#imports = new Imports(folder);
  }

  read(file: string): string {
    return readFileSync(join(this.#folder, file), 'utf8');
  }

  async run(mutant: Mutant): Promise<Outcome> {
    const { file } = mutant;
    const path = join(this.#folder, file);
    const text = this.read(file);
    const mutated = apply(text, mutant);
    // The own test of a process starts the file instead of importing it.
    const own = mirrorsOf(file);
    const tests = testsBeside(file, this.#tests).filter(
      (test) => own.includes(test) || this.#imports.reaches(test, file),
    );
    for (const test of tests) {
      writeFileSync(path, mutated);
      const isFailed = await this.#fails(test);
      writeFileSync(path, text);
      if (!isFailed) continue;
      return (await this.#passesAlone(test))
        ? { verdict: 'killed', note: test }
        : { verdict: 'unknown', note: `${test} fails without a fault` };
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
    const passes = !(await this.#fails(test)) || !(await this.#fails(test));
    this.#passes.set(test, passes);
    return passes;
  }

  #fails(test: string): Promise<boolean> {
    const turn = isExclusive(test) ? ['--import=./test/runner/test-process.ts'] : [];
    const child = spawn(process.execPath, [...nodeOptions, ...turn, test], {
      cwd: this.#folder,
      stdio: 'ignore',
      env: { ...process.env, NODE_COMPILE_CACHE: join(root, '.cache/compile') },
      // A separate process group, so that processes started by a test end with it.
      detached: true,
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
      const timer = setTimeout(this.#end, turn.length > 0 ? exclusiveTimeoutMs : fileTimeoutMs);
      child.once('error', reject);
      child.once('close', (code) => {
        clearTimeout(timer);
        this.#end();
        this.#end = () => undefined;
        resolve(code !== 0);
      });
    });
  }
}
