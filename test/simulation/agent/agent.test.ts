/**
 * The whole agent in a simulated cluster, by seeds: two nodes, an operator, users, and faults of everything
 * around it. `./dev simulate --seed N` repeats one and prints its story.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { sizeOfThisRun } from '../../runner/kinds.ts';
import { kept } from './kept.ts';
import type { Kind } from './plan.ts';
import { planted } from './planted.ts';
import { runSeed } from './run.ts';
import {
  commandOf,
  openLoaded,
  runChoice,
  search,
  shorten,
  storyOf,
  type Choice,
} from './search.ts';
import { World } from './world.ts';

const isLong = sizeOfThisRun() === 'long';
const seeds = isLong ? 10_000 : 300;
/** The same actions, at other moments of the parts. */
const keptSeeds = 20;
/** Each planted fault is found within so many seeds. */
const plantedSeeds = isLong ? 2_000 : 400;

const whole = (seed: number): Choice => ({ seed, prefer: [], only: undefined });

describe('the simulated cluster', () => {
  it('breaks no invariant', async (t) => {
    using loaded = await openLoaded();
    const startedMs = performance.now();
    const { failed, coverage, events, answers, tokens } = await search(loaded, 1, seeds);
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
    t.diagnostic(
      `${seeds} seeds in ${seconds} s: ${events} events, ${answers} answers, ${tokens} tokens`,
    );
    t.diagnostic(coverage.render());
    const [first] = failed;
    if (first === undefined) return;
    const shorter = await shorten(loaded, first.choice, first.outcome);
    const story = storyOf(shorter, await runChoice(loaded, shorter));
    const commands = failed.map(
      ({ choice, outcome }) => `${commandOf(choice)}: ${outcome.failure?.slice(0, 200) ?? ''}`,
    );
    assert.fail([...commands, story].join('\n'));
  });

  it('runs the same twice for the same seed, by itself, and leaves nothing', async (t) => {
    using loaded = await openLoaded();
    const hashesOf = async (some: readonly number[]): Promise<readonly string[]> => {
      const hashes: string[] = [];
      for (const seed of some) hashes.push((await runChoice(loaded, whole(seed))).hash);
      return hashes;
    };
    const hashes = await hashesOf([2, 3, 4, 5]);
    assert.equal(new Set(hashes).size, 4);
    // On a machine that is busy with others, too.
    const nowMs = performance.now.bind(performance);
    let lateMs = 0;
    t.mock.method(performance, 'now', () => nowMs() + (lateMs += 5_000));
    assert.deepEqual(await hashesOf([2, 3, 4, 5]), hashes);
    // The first and the last one, and those whose last second has just ended, by a timer of Node's HTTP, may stay.
    const worlds = queryObjects(World, { format: 'count' });
    assert.ok(worlds <= 5, `${worlds} of 8 runs are still in memory`);
  });

  for (const { why, actions } of kept) {
    it(`holds where ${why}`, async () => {
      using loaded = await openLoaded();
      const plan = actions.map((action, number) => ({ ...action, number }));
      for (let seed = 1; seed <= keptSeeds; seed += 1) {
        const { failure, story } = await runSeed(loaded, seed, plan);
        assert.equal(failure, undefined, story.join('\n'));
      }
    });
  }
});

/** The steps from outside of the models of revocation and of closedness, as actions on one node. */
const modelled: Readonly<Record<string, readonly Kind[]>> = {
  revocation: [
    'bindingDeleted',
    'bindingRestored',
    'closeWatches',
    'silentWatches',
    'expireVersions',
    'kill',
  ],
  closedness: ['update', 'undo', 'term', 'kill', 'killPod', 'reboot'],
};

function* orders(steps: readonly Kind[], length: number): Iterable<readonly Kind[]> {
  if (length === 0) yield [];
  else
    for (const first of steps) for (const rest of orders(steps, length - 1)) yield [first, ...rest];
}

describe('every order of the steps of a model', () => {
  const length = isLong ? 3 : 2;
  for (const [name, steps] of Object.entries(modelled)) {
    it(`holds for ${name}`, async (t) => {
      using loaded = await openLoaded();
      let runs = 0;
      for (const order of orders(steps, length)) {
        const plan = order.map((kind, number) => {
          return { number, kind, atMs: number * 700, which: 0.1, size: 0.3 };
        });
        const { failure, story } = await runSeed(loaded, (runs += 1), plan);
        assert.equal(failure, undefined, [order.join(), ...story].join('\n'));
      }
      t.diagnostic(`${runs} orders of ${length} steps`);
    });
  }
});

describe('a planted fault', () => {
  for (const fault of planted) {
    it(`is found: ${fault.name.replaceAll('-', ' ')}`, async (t) => {
      using loaded = await openLoaded(fault);
      const prefer = isLong ? [] : fault.prefer;
      for (let seed = 1; seed <= plantedSeeds; seed += 1) {
        const { failure = '' } = await runChoice(loaded, { seed, prefer, only: undefined });
        if (!fault.reports.test(failure)) continue;
        t.diagnostic(`seed ${seed}: ${failure.slice(0, 200)}`);
        return;
      }
      assert.fail(`${plantedSeeds} seeds do not find it`);
    });
  }
});
