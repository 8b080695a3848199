import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Counts } from '../../src/base/counts.ts';

describe('counts', () => {
  it('are separate for each key, and end at nothing', () => {
    const counts = new Counts();
    for (const key of ['a', 'a', 'b']) counts.add(key);
    assert.deepEqual([counts.get('a'), counts.get('b'), counts.get('c')], [2, 1, 0]);
    for (const key of ['a', 'b', 'b']) counts.remove(key);
    assert.deepEqual([counts.get('a'), counts.get('b')], [1, 0]);
  });
});
