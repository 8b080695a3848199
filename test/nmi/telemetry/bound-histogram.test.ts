import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram, Registry } from 'prom-client';
import { BoundHistogram } from '../../../src/nmi/telemetry/bound-histogram.ts';

const shape = {
  name: 'nmi_test_seconds',
  help: 'A path\\with a break\nand "quotes".',
  labelNames: ['route', 'cache'],
  buckets: [0.001, 0.5, 1, 10],
};

const word = fc.constantFrom('token', 'a"b', 'c\\d', 'e\nf', '', 'ü');
const labels = fc.oneof(
  fc.record({ route: word, cache: word }),
  fc.record({ route: word }),
  fc.constant({}),
);
// At the bounds, near them, and beyond them.
const value = fc.oneof(
  fc.constantFrom(0, 0.001, 0.5, 1, 10, 11),
  fc.double({ noNaN: true, min: 0, max: 20 }),
);

describe('a histogram', () => {
  it('is rendered as prom-client would render it, for any observations', async () => {
    const observations = fc.array(fc.record({ labels, value }), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(observations, async (all) => {
        const registry = new Registry();
        const reference = new Histogram({ ...shape, registers: [registry] });
        const own = new BoundHistogram(shape);
        for (const { labels: of, value: seen } of all) {
          reference.observe(of, seen);
          own.bind(of)(seen);
        }
        assert.equal(`${own.render()}\n`, await registry.metrics());
      }),
    );
  });

  it('returns the same function for the same labels, in any order', () => {
    const own = new BoundHistogram(shape);
    const observe = own.bind({ route: 'token', cache: 'hit' });
    assert.equal(own.bind({ cache: 'hit', route: 'token' }), observe);
    assert.notEqual(own.bind({ route: 'token', cache: 'miss' }), observe);
  });

  it('has a series once it is bound, and ignores values that are not numbers', () => {
    const own = new BoundHistogram(shape);
    const observe = own.bind({ route: 'token' });
    assert.match(own.render(), /^nmi_test_seconds_count\{route="token"\} 0$/m);
    observe(Number.NaN);
    observe(Infinity);
    assert.match(own.render(), /^nmi_test_seconds_count\{route="token"\} 0$/m);
    assert.match(own.render(), /^nmi_test_seconds_sum\{route="token"\} 0$/m);
    observe(-1);
    assert.match(own.render(), /^nmi_test_seconds_bucket\{le="0.001",route="token"\} 1$/m);
  });
});
