/** The simulation itself: it repeats a run by its seed, and finds faults that are planted into the product. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { sizeOfThisRun } from '../runner/kinds.ts';
import { planted } from './planted.ts';
import { openLoaded, runChoice, type Choice } from './search.ts';
import { World } from './world.ts';

const isLong = sizeOfThisRun() === 'long';
/** Each planted fault is found within so many seeds. */
const plantedSeeds = isLong ? 2_000 : 200;

const whole = (seed: number): Choice => ({ seed, prefer: [], only: undefined });

describe('the simulation', () => {
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
