import assert from 'node:assert/strict';
import { it } from 'node:test';
import { nearest } from '../../src/base/nearest.ts';

it('finds the name with the fewest insertions, deletions and replacements', () => {
  assert.deepEqual(nearest('kitten', ['sitting', 'kitchen', 'mitten']), {
    name: 'mitten',
    edits: 1,
  });
  assert.deepEqual(nearest('kitten', ['sitting']), { name: 'sitting', edits: 3 });
  assert.deepEqual(nearest('', ['ab']), { name: 'ab', edits: 2 });
  assert.deepEqual(nearest('ab', ['']), { name: '', edits: 2 });
  assert.equal(nearest('ab', []), undefined);
});
