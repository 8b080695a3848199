/**
 * Makes faults in `src`, one by one, and runs the tests beside the file: a fault that none of them
 * detects, and that the compiler accepts, shows a behaviour that no test checks. `node test/mutation/run.ts [FOLDER-OR-FILE]`, with
 * `--seed` and `--budget` (0: all of them) for the choice, `--line` for one line of a file. Exits
 * with 1 if fewer than nine of ten are detected.
 */
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { apply, mutantsOf, type Mutant } from './mutants.ts';
import { Trial, type Outcome } from './trial.ts';
import { freshNative } from '../../scripts/native.ts';

const root = join(import.meta.dirname, '../..');
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

async function work(trial: Trial, queue: Mutant[]): Promise<readonly Result[]> {
  const results: Result[] = [];
  for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
    const startedMs = performance.now();
    const description = describe(mutant, trial.read(mutant.file));
    const outcome = await trial.run(mutant);
    results.push({ description, ...outcome });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    const { verdict, note } = outcome;
    const shown = isMissed(outcome) ? verdict.toUpperCase() : verdict;
    process.stdout.write(`${shown} ${description} (${note}, ${seconds} s)\n`);
  }
  return results;
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

async function run(mutants: readonly Mutant[], workers: number): Promise<number> {
  freshNative();
  const folder = mkdtempSync(join(tmpdir(), 'nmi-mutation-'));
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
    const queue = [...mutants];
    const results = (await Promise.all(trials.map((trial) => work(trial, queue)))).flat();
    const missed = results.filter(isMissed);
    for (const { description, verdict } of missed) {
      process.stdout.write(`  ${verdict}: ${description}\n`);
    }
    const faults = results.filter(({ verdict }) => verdict !== 'rejected').length;
    const killed = faults - missed.length;
    const share = faults === 0 ? 1 : killed / faults;
    process.stdout.write(
      `${killed} of ${faults} faults detected (${(100 * share).toFixed(1)} %), ${results.length - faults} more do not compile\n`,
    );
    return share >= goal ? 0 : 1;
  } finally {
    clear();
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string', default: '1' },
    budget: { type: 'string', default: '400' },
    line: { type: 'string', multiple: true },
    workers: { type: 'string', default: String(Math.min(availableParallelism(), 4)) },
  },
});
const [where = 'src'] = positionals;
const files = globSync(where.endsWith('.ts') ? where : `${where}/**/*.ts`, { cwd: root });
const all = files
  .toSorted()
  .flatMap((file) => mutantsOf(file, readFileSync(join(root, file), 'utf8')))
  .filter(({ line }) => values.line === undefined || values.line.includes(String(line)));
if (all.length === 0) {
  process.stderr.write(`no fault can be made in ${where}\n`);
  process.exitCode = 1;
} else {
  const chosen = choose(all, Number(values.seed), Number(values.budget));
  process.stdout.write(
    `${chosen.length} of ${all.length} faults in ${where}, seed ${values.seed}\n`,
  );
  process.exitCode = await run(chosen, Number(values.workers));
}
