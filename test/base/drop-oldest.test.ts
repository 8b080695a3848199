import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dropOldest } from '../../src/base/drop-oldest.ts';

describe('the oldest entries', () => {
  it('are dropped until there is room, whenever they were used', () => {
    const names = new Set(['a', 'b', 'c']).add('a');
    dropOldest(names, 2);
    assert.deepEqual([...names], ['b', 'c']);
    const ids = new Map([
      [1, 'x'],
      [2, 'y'],
      [3, 'z'],
    ]).set(1, 'w');
    dropOldest(ids, 1);
    assert.deepEqual([...ids], [[3, 'z']]);
  });

  it('stay while there are no more than allowed', () => {
    const names = new Set(['a', 'b']);
    dropOldest(names, 2);
    assert.equal(names.size, 2);
  });
});
