import { slopeOf } from '../core/statistics.ts';
import { fillCache, timeHits } from '../stand/cached-tokens.ts';
import { curve, type Grown } from './grown.ts';
import type { Context } from './scenario.ts';

const cacheSteps = [1, 100, 1_000, 10_000, 50_000];

/** The cache alone, whose tokens come from nowhere. */
export async function measureCache({ say }: Context): Promise<Grown> {
  const cost: [number, number][] = [];
  const memory: [number, number][] = [];
  for (const count of cacheSteps) {
    const before = process.memoryUsage();
    const { cache, keys } = await fillCache(count);
    using _closed = cache;
    cost.push([count, timeHits(cache, keys)]);
    const after = process.memoryUsage();
    memory.push([count, (after.rss - before.rss) / 2 ** 20]);
    say(`${count} tokens in the cache: ${Math.round(cost.at(-1)?.[1] ?? 0)} ns`);
  }
  const [values, ns] = [[slopeOf(memory) * 1024], cost.map(([, value]) => value)];
  return {
    figures: [
      { name: 'resident memory for each of the tokens', unit: 'KB', values },
      {
        name: 'the cache alone: look-up and rendering, fewest tokens',
        unit: 'ns',
        values: ns.slice(0, 1),
      },
      {
        name: 'the cache alone: look-up and rendering, most tokens',
        unit: 'ns',
        values: ns.slice(-1),
      },
    ],
    curves: [
      curve('Look-up and rendering in the cache alone', 'tokens', 'ns', [
        { name: 'cache', points: cost },
      ]),
    ],
  };
}
