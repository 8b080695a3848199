/**
 * Checks that the unit tests detect faults: `node scripts/mutation.ts [FILTER]` makes each fault of
 * `test/mutation`, or each with FILTER in its file or text, in a copy of the tree and checks
 * whether a test fails. Exits with 1 if a fault is not found, if a fault is found that the list
 * marks as impossible to find, or if the text that it replaces is not in its file exactly once.
 */
import { spawn } from 'node:child_process';
import {
  cpSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { allMutations } from '../test/mutation/all.ts';
import {
  mutate,
  testsFor,
  unexpected,
  type Mutation,
  type Verdict,
} from '../test/mutation/mutation.ts';
import { freshNative } from './native.ts';

const root = join(import.meta.dirname, '..');
/** Timeout of one test. A fault may make it hang, loop or use all memory: each is a failure. */
const testTimeoutMs = 30_000;
/** Timeout of one file, for a loop that its own process cannot end. */
const fileTimeoutMs = 180_000;
const nodeOptions = [
  '--max-old-space-size=1024',
  `--test-timeout=${testTimeoutMs}`,
  '--test-force-exit',
];
/** Results of builds and installations; linked because tests need them. */
const linked = ['node_modules', 'dist'];
const leftOut = new Set([...linked, '.git', '.cache']);
/** Functions that end running tests, whose process groups get no signals of the terminal. */
const running = new Set<() => void>();

async function run(mutations: readonly Mutation[]): Promise<number> {
  if (mutations.length === 0) {
    process.stderr.write('there is no such mutation\n');
    return 1;
  }
  freshNative();
  const startedMs = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'nmi-mutation-'));
  const clear = (): void => rmSync(folder, { recursive: true, force: true });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      for (const end of running) end();
      clear();
      process.exit(1);
    });
  }
  try {
    const queue = [...mutations];
    const workers = Math.min(availableParallelism(), 4, queue.length);
    const copies = Array.from(
      { length: workers },
      (_, index) => new Copy(join(folder, `${index}`)),
    );
    const found = await Promise.all(copies.map((copy) => work(copy, queue)));
    const results = found.flat();
    const wrong = results.flatMap(({ mutation: { file, wrong: fault }, problem }) =>
      problem === undefined ? [] : [`  ${file}: ${fault}: ${problem}\n`],
    );
    const killed = results.filter(({ verdict }) => verdict === 'killed').length;
    const seconds = Math.round((performance.now() - startedMs) / 1000);
    process.stdout.write(
      `${killed} of ${mutations.length} faults found in ${seconds} s` +
        `${wrong.length === 0 ? '' : `; ${wrong.length} unexpected:`}\n`,
    );
    for (const line of wrong) process.stdout.write(line);
    return wrong.length === 0 ? 0 : 1;
  } finally {
    clear();
  }
}

interface Result {
  readonly mutation: Mutation;
  readonly verdict: Verdict | undefined;
  /** Difference from the list. */
  readonly problem: string | undefined;
}

async function work(copy: Copy, queue: Mutation[]): Promise<readonly Result[]> {
  const results: Result[] = [];
  for (let mutation = queue.shift(); mutation !== undefined; mutation = queue.shift()) {
    const startedMs = performance.now();
    const { verdict, note } = await copy.tryMutation(mutation);
    const problem = verdict === undefined ? note : unexpected(mutation, verdict);
    results.push({ mutation, verdict, problem });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    const mark = problem === undefined ? ' ' : '!';
    const line = `${verdict ?? 'unknown'} ${mutation.file}: ${mutation.wrong} (${note}, ${seconds} s)`;
    process.stdout.write(`${mark} ${line}\n`);
  }
  return results;
}

interface MutationResult {
  /** Undefined when inconclusive. */
  readonly verdict: Verdict | undefined;
  readonly note: string;
}

/** A copy of the tree that faults are made in. */
class Copy {
  readonly #folder: string;
  readonly #tests: readonly string[];
  /** Whether a test passes without a fault. */
  readonly #passes = new Map<string, boolean>();

  constructor(folder: string) {
    this.#folder = folder;
    const filter = (path: string): boolean => !leftOut.has(path.slice(root.length + 1));
    cpSync(root, folder, { recursive: true, filter });
    for (const name of linked) symlinkSync(join(root, name), join(folder, name));
    this.#tests = globSync('test/**/*.test.ts', { cwd: folder });
  }

  async tryMutation(mutation: Mutation): Promise<MutationResult> {
    const path = join(this.#folder, mutation.file);
    const text = readFileSync(path, 'utf8');
    const mutated = mutate(text, mutation);
    if (mutated === undefined) {
      return { verdict: undefined, note: 'its place is not in the file exactly once' };
    }
    const { own, others } = testsFor(mutation.file, this.#tests);
    for (const test of [...own, ...others]) {
      writeFileSync(path, mutated);
      let failure = await this.#fails(test);
      // On a busy machine a test may time out, as if it had found a fault that cannot be found.
      if (failure !== undefined && mutation.survives !== undefined)
        failure = await this.#fails(test);
      writeFileSync(path, text);
      if (failure === undefined) continue;
      if (await this.#passesAlone(test)) {
        return { verdict: 'killed', note: `${failure} ${basename(test)}` };
      }
      return { verdict: undefined, note: `${test} fails without a fault` };
    }
    return { verdict: 'survived', note: `${own.length + others.length} tests` };
  }

  async #passesAlone(test: string): Promise<boolean> {
    const known = this.#passes.get(test);
    if (known !== undefined) return known;
    // Retries once: on a busy machine a test may time out.
    const passes =
      (await this.#fails(test)) === undefined || (await this.#fails(test)) === undefined;
    this.#passes.set(test, passes);
    return passes;
  }

  /** How a test fails; undefined when it passes. */
  #fails(test: string): Promise<'by' | 'by the time of' | undefined> {
    const child = spawn(process.execPath, [...nodeOptions, test], {
      cwd: this.#folder,
      stdio: 'ignore',
      // A separate process group, so that processes started by a test end with it.
      detached: true,
    });
    return new Promise((resolve, reject) => {
      let isLate = false;
      const end = (): void => {
        if (child.pid === undefined) return;
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          // The process has ended.
        }
      };
      running.add(end);
      const timer = setTimeout(() => {
        isLate = true;
        end();
      }, fileTimeoutMs);
      child.once('error', reject);
      child.once('close', (code) => {
        clearTimeout(timer);
        end();
        running.delete(end);
        if (isLate) resolve('by the time of');
        else resolve(code === 0 ? undefined : 'by');
      });
    });
  }
}

if (import.meta.main) {
  const [filter = ''] = process.argv.slice(2);
  process.exitCode = await run(
    allMutations.filter(({ file, wrong }) => `${file}: ${wrong}`.includes(filter)),
  );
}
