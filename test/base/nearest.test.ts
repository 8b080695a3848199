import assert from 'node:assert/strict';
import { it } from 'node:test';
import { nearest } from '../../src/base/nearest.ts';

it('finds the name with the fewest letters added, left out, replaced or swapped', () => {
  assert.equal(nearest('kitten', ['sitting', 'kitchen', 'mitten']), 'mitten');
  assert.equal(nearest('kitten', ['sitting']), undefined, 'three of six');
  assert.equal(nearest('kitten', ['kitchen']), 'kitchen');
  assert.equal(nearest('abcdef', ['bcdf']), 'bcdf');
  assert.equal(nearest('ab🦀', ['ab']), 'ab', 'a letter of two code units is one edit');
  assert.equal(nearest('abc', []), undefined);
  assert.equal(nearest('', ['']), '');
});

it('is no name that nobody means', () => {
  const among = ['web', 'api', 'checkout-worker', 'ui'];
  for (const [wrong, meant] of [
    ['wbe', 'web'],
    ['ewb', 'web'],
    ['wxb', 'web'],
    ['wxy', undefined],
    ['bew', undefined],
    ['pxi', undefined],
    ['xyweb', undefined],
    ['paxi', undefined],
    ['db', undefined],
    ['xi', undefined],
    ['cehckout-wroker', 'checkout-worker'],
    ['checkouts', undefined],
    ['older-checkout-worker', undefined],
    ['my-checkout-worker', 'checkout-worker'],
  ] as const) {
    assert.equal(nearest(wrong, among), meant, wrong);
  }
});
