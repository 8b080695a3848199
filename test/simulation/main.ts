/** `./dev simulate`: repeats one seed with its story, or looks for seeds that break an invariant. */
import { parseArgs } from 'node:util';
import { kinds, type Kind } from './plan.ts';
import {
  commandOf,
  openLoaded,
  runChoice,
  search,
  shorten,
  storyOf,
  type Choice,
} from './search.ts';

const usage = `./dev simulate --seed N [--only 0,3,7] [--prefer KIND,KIND]
    repeats one run of the simulated cluster and prints its story.
./dev simulate --seeds A..B
    runs these seeds, shortens those that break an invariant, and prints what was covered.`;

function numbers(text: string): readonly number[] {
  return text === 'none' ? [] : text.split(',').map(Number);
}

function isKind(name: string): name is Kind {
  return Object.hasOwn(kinds, name);
}

async function repeat(choice: Choice): Promise<boolean> {
  using loaded = await openLoaded();
  const outcome = await runChoice(loaded, choice);
  process.stdout.write(`${storyOf(choice, outcome)}\n`);
  return outcome.failure === undefined;
}

async function look(first: number, last: number): Promise<boolean> {
  using loaded = await openLoaded();
  const startedMs = performance.now();
  const found = await search(loaded, first, last, (choice, { failure }) => {
    if (choice.seed % 100 === 0) process.stdout.write(`up to seed ${choice.seed}\n`);
    if (failure !== undefined)
      process.stdout.write(`${commandOf(choice)}: ${failure.slice(0, 300)}\n`);
  });
  for (const { choice, outcome } of found.failed.slice(0, 3)) {
    const shorter = await shorten(loaded, choice, outcome);
    process.stdout.write(`\n${storyOf(shorter, await runChoice(loaded, shorter))}\n`);
  }
  const seconds = Math.round((performance.now() - startedMs) / 1_000);
  process.stdout.write(
    `\n${found.coverage.render()}\n${last - first + 1} seeds, ${found.failed.length} failed, in ${seconds} s: ` +
      `${found.events} events, ${Math.round(found.virtualMs / 3_600_000)} simulated hours, ` +
      `${found.answers} answers, ${found.tokens} tokens\n`,
  );
  return found.failed.length === 0;
}

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    only: { type: 'string' },
    prefer: { type: 'string' },
    help: { type: 'boolean' },
  },
});
const range = /^(\d+)\.\.(\d+)$/.exec(values.seeds ?? '');
let isGood = false;
if (values.seed !== undefined && /^\d+$/.test(values.seed)) {
  isGood = await repeat({
    seed: Number(values.seed),
    prefer: (values.prefer ?? '').split(',').filter(isKind),
    only: values.only === undefined ? undefined : numbers(values.only),
  });
} else if (range === null) {
  process.stderr.write(`${usage}\n`);
  isGood = values.help === true;
} else {
  isGood = await look(Number(range[1]), Number(range[2]));
}
// What killed processes left behind must not keep this one alive.
process.exit(isGood ? 0 : 1);
