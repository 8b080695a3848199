import assert from 'node:assert/strict';
import { it } from 'node:test';
import { nearest } from '../../src/base/nearest.ts';

it('finds the name with the fewest insertions, deletions and replacements', () => {
  assert.equal(nearest('kitten', ['sitting', 'kitchen', 'mitten']), 'mitten');
  assert.equal(nearest('kitten', ['sitting'], 3), 'sitting');
  assert.equal(nearest('kitten', ['sitting'], 2), undefined);
  assert.equal(nearest('', ['ab'], 2), 'ab');
  assert.equal(nearest('abcd', ['bcd'], 0), undefined, 'a deletion counts');
  assert.equal(nearest('', ['ab'], 1), undefined);
  assert.equal(nearest('ab', [''], 2), '');
  assert.equal(nearest('ab🦀', ['ab'], 1), 'ab', 'a letter of two code units is one edit');
  assert.equal(nearest('ab', []), undefined);
});
