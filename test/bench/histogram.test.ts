/** The recorder of latencies against exact percentiles of the same numbers. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram, type CompactHistogram } from '../../bench/core/histogram.ts';

/** Tenths of a microsecond, small and large values equally often. */
const latencyTicks = fc
  .tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 30 }))
  .map(([share, exponent]) => Math.floor(share * 2 ** exponent));

function exactPercentile(ticks: readonly number[], share: number): number {
  const rank = Math.max(1, Math.ceil(share * ticks.length));
  return ticks.toSorted((a, b) => a - b)[rank - 1] ?? 0;
}

function record(ticks: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const tick of ticks) histogram.recordMs(tick / 10_000);
  return histogram;
}

const shares = [0, 0.25, 0.5, 0.9, 0.99, 0.999, 1];

describe('the recorder of latencies', () => {
  it('gives percentiles within 1/128 of the exact ones', () => {
    fc.assert(
      fc.property(fc.array(latencyTicks, { minLength: 1, maxLength: 400 }), (ticks) => {
        const histogram = record(ticks);
        for (const share of shares) {
          const exact = exactPercentile(ticks, share);
          const found = histogram.percentileUs(share) * 10;
          assert.ok(
            Math.abs(found - exact) <= exact / 128 + 1e-6,
            `${share}: ${found} instead of ${exact}`,
          );
        }
        assert.equal(histogram.count, ticks.length);
        assert.equal(Math.round(histogram.maxUs * 10), Math.max(...ticks));
        assert.equal(Math.round(histogram.minUs * 10), Math.min(...ticks));
      }),
    );
  });

  it('is the same after a round trip through its compact form', () => {
    fc.assert(
      fc.property(fc.array(latencyTicks, { maxLength: 200 }), (ticks) => {
        const whole = record(ticks);
        const read = Histogram.from(
          JSON.parse(JSON.stringify(whole.compact())) as CompactHistogram,
        );
        assert.deepEqual(read.compact(), whole.compact());
        assert.deepEqual(
          shares.map((share) => read.percentileUs(share)),
          shares.map((share) => whole.percentileUs(share)),
        );
      }),
    );
  });

  it('is the sum of its parts', () => {
    fc.assert(
      fc.property(fc.array(latencyTicks), fc.array(latencyTicks), (some, others) => {
        const sum = Histogram.sum([record(some).compact(), record(others).compact()]);
        assert.deepEqual(sum.compact().pairs, record([...some, ...others]).compact().pairs);
      }),
    );
  });

  it('counts values outside its range at its ends', () => {
    const histogram = record([-5, 2 ** 40]);
    assert.equal(histogram.percentileUs(0), 0);
    assert.ok(histogram.percentileUs(1) > 2e8);
  });
});
