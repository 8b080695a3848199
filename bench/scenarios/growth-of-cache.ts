import { median } from '../core/statistics.ts';
import { fillCache, timeHits } from '../fixture/cached-tokens.ts';
import { curve, ends, perObject, type Grown } from './grown.ts';
import type { Context } from './scenario.ts';

const cacheSteps = [1, 100, 1_000, 10_000, 50_000];

/** The cache alone, without an upstream. */
export async function measureCache({ say }: Context): Promise<Grown> {
  const cost: (readonly number[])[] = [];
  const points: [number, number][] = [];
  const memory: [number, number][] = [];
  for (const count of cacheSteps) {
    const before = process.memoryUsage();
    const { cache, keys } = await fillCache(count);
    using _closed = cache;
    const ns = timeHits(cache, keys);
    cost.push(ns);
    points.push([count, median(ns)]);
    const after = process.memoryUsage();
    memory.push([count, (after.rss - before.rss) / 2 ** 20]);
    say(`${count} tokens in the cache: ${Math.round(median(ns))} ns`);
  }
  const name = 'the cache alone: look-up and rendering';
  return {
    figures: [
      ...perObject('resident memory for each of the tokens', memory),
      { name: `${name}, fewest tokens`, unit: 'ns', values: cost[0] ?? [] },
      { name: `${name}, most tokens`, unit: 'ns', values: cost.at(-1) ?? [] },
      { name: `${name} at the most tokens`, unit: '× that at the fewest', values: ends(cost) },
    ],
    curves: [
      curve('Look-up and rendering in the cache alone', 'tokens', 'ns', [
        { name: 'cache', points },
      ]),
    ],
  };
}
