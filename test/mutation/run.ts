/**
 * Makes faults in `src`, one by one, and runs the tests that run the place: a fault that none of them
 * detects, and that the compiler accepts, shows a behaviour that no test checks. `node test/mutation/run.ts [FOLDER-OR-FILE]`, with
 * `--seed` and `--budget` (0: all of them) for the choice, `--line` for one line of a file. With `--results FILE`, each verdict is
 * added to the file, and a run that was interrupted goes on from it; `--again FILE` chooses the faults that such a file has as
 * detected. Exits with 1 if fewer than nine of ten are detected.
 */
import { appendFileSync, existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { freshNative } from '../../scripts/native.ts';
import { kindOf } from '../runner/kinds.ts';
import type { TestCoverage } from './coverage.ts';
import { apply, mutantsOf, type Mutant } from './mutants.ts';
import { Trial, type Outcome } from './trial.ts';

const root = join(import.meta.dirname, '../..');
const coverageFolder = join(root, '.cache/mutation');
const goal = 0.9;

interface Result extends Outcome {
  readonly description: string;
}

function choose(all: readonly Mutant[], seed: number, budget: number): readonly Mutant[] {
  if (budget === 0 || budget >= all.length) return all;
  const length = { minLength: budget, maxLength: budget };
  const [chosen = []] = fc.sample(fc.shuffledSubarray([...all], length), { seed, numRuns: 1 });
  return chosen;
}

/** What all trials do together: each takes the next of the queue. */
async function share<T, R>(
  trials: readonly Trial[],
  all: readonly T[],
  work: (trial: Trial, each: T) => Promise<R>,
): Promise<readonly R[]> {
  const queue = [...all];
  const results: R[] = [];
  const takeAll = async (trial: Trial): Promise<void> => {
    for (let each = queue.shift(); each !== undefined; each = queue.shift()) {
      results.push(await work(trial, each));
    }
  };
  await Promise.all(trials.map(takeAll));
  return results;
}

async function judge(
  trial: Trial,
  mutant: Mutant,
  coverage: readonly TestCoverage[],
): Promise<Result> {
  const startedMs = performance.now();
  const description = describe(mutant, trial.read(mutant.file));
  const outcome = await trial.run(mutant, coverage);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const { verdict, note } = outcome;
  const shown = isMissed(outcome) ? verdict.toUpperCase() : verdict;
  process.stdout.write(`${shown} ${description} (${note}, ${seconds} s)\n`);
  return { description, ...outcome };
}

function isMissed({ verdict }: Outcome): boolean {
  return verdict === 'survived' || verdict === 'unknown';
}

/** With the changed line, before and after. */
function describe(mutant: Mutant, text: string): string {
  const { file, line, operator } = mutant;
  const before = text.split('\n')[line - 1]?.trim() ?? '';
  const after = apply(text, mutant).split('\n')[line - 1]?.trim() ?? '';
  return `${file}:${line} ${operator}: ${before} → ${after}`;
}

async function run(mutants: readonly Mutant[], known: readonly Result[]): Promise<number> {
  freshNative();
  const folder = mkdtempSync(join(tmpdir(), 'nmi-mutation-'));
  const workers = Number(values.workers);
  const trials = Array.from({ length: workers }, (_, at) => new Trial(join(folder, `${at}`)));
  const clear = (): void => {
    for (const trial of trials) trial[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      clear();
      process.exit(1);
    });
  }
  try {
    const tests = globSync('test/**/*.test.ts', { cwd: root }).filter(isMeasured).toSorted();
    const coverage = await share(trials, tests, (trial, test) =>
      trial.measure(test, coverageFolder),
    );
    const results = [...known];
    await share(trials, mutants, async (trial, mutant) => {
      const result = await judge(trial, mutant, coverage);
      results.push(result);
      if (values.results !== undefined) {
        appendFileSync(values.results, `${JSON.stringify(result)}\n`);
      }
    });
    const missed = results.filter(isMissed);
    for (const { description, verdict } of missed) {
      process.stdout.write(`  ${verdict}: ${description}\n`);
    }
    const faults = results.filter(({ verdict }) => verdict !== 'rejected').length;
    const killed = faults - missed.length;
    const late = results.filter(({ verdict }) => verdict === 'late').length;
    const portion = faults === 0 ? 1 : killed / faults;
    process.stdout.write(
      `${killed} of ${faults} faults detected (${(100 * portion).toFixed(1)} %), ${late} of them by a test that did not end; ${results.length - faults} more do not compile\n`,
    );
    return portion >= goal ? 0 : 1;
  } finally {
    clear();
  }
}

/** Tests of a cluster and of a lab take minutes. */
function isMeasured(test: string): boolean {
  const { name } = kindOf(test);
  return name === 'unit' || name === 'kernel';
}

function readResults(path: string | undefined): readonly Result[] {
  if (path === undefined || !existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Result);
}

/** The line of a fault may have another number after a change. */
function withoutLine(description: string): string {
  return description.replace(/:\d+ /, ' ');
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string', default: '1' },
    budget: { type: 'string', default: '400' },
    line: { type: 'string', multiple: true },
    results: { type: 'string' },
    again: { type: 'string' },
    workers: { type: 'string', default: String(Math.min(availableParallelism(), 4)) },
  },
});
const [where = 'src'] = positionals;
const files = globSync(where.endsWith('.ts') ? where : `${where}/**/*.ts`, { cwd: root });
const texts = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));
const nameOf = (mutant: Mutant): string =>
  withoutLine(describe(mutant, texts.get(mutant.file) ?? ''));
const detected = readResults(values.again).filter(
  ({ verdict }) => verdict === 'killed' || verdict === 'late',
);
const again = new Set(detected.map(({ description }) => withoutLine(description)));
const all = files
  .toSorted()
  .flatMap((file) => mutantsOf(file, texts.get(file) ?? ''))
  .filter(({ line }) => values.line === undefined || values.line.includes(String(line)))
  .filter((mutant) => values.again === undefined || again.has(nameOf(mutant)));
if (all.length === 0) {
  process.stderr.write(`no fault can be made in ${where}\n`);
  process.exitCode = 1;
} else {
  const budget = values.again === undefined ? Number(values.budget) : 0;
  const chosen = choose(all, Number(values.seed), budget);
  const known = readResults(values.results);
  const done = new Set(known.map(({ description }) => description));
  const left = chosen.filter((mutant) => !done.has(describe(mutant, texts.get(mutant.file) ?? '')));
  process.stdout.write(
    `${chosen.length} of ${all.length} faults in ${where}, seed ${values.seed}; ${left.length} left\n`,
  );
  process.exitCode = await run(left, known);
}
