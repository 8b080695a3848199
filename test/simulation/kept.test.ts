/** Actions that once led to a fault, and every order of some actions, in the simulated cluster. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sizeOfThisRun } from '../runner/kinds.ts';
import { kept } from './kept.ts';
import type { Kind } from './plan.ts';
import { runSeed } from './run.ts';
import { openLoaded } from './search.ts';

/** The same actions, at other moments of the parts. */
const keptSeeds = 20;

describe('the simulated cluster', () => {
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

/** What ends a right, and what ends an agent, as actions on one node. */
const endings: Readonly<Record<string, readonly Kind[]>> = {
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

describe('every order of some steps', () => {
  const length = sizeOfThisRun() === 'long' ? 3 : 2;
  for (const [name, kinds] of Object.entries(endings)) {
    it(`holds for ${name}`, async (t) => {
      using loaded = await openLoaded();
      let runs = 0;
      for (const order of orders(kinds, length)) {
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
