import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dropOfLargestOwner } from '../../../src/cache/token/drop-of-largest-owner.ts';

describe('a full map', () => {
  it('loses the oldest entry of the owner that has most', () => {
    const entries = new Map([
      ['victim', 'v'],
      ['1', 'hostile'],
      ['2', 'hostile'],
      ['3', 'hostile'],
    ]);
    const drop = (): void => dropOfLargestOwner(entries, (owner) => owner);
    drop();
    assert.deepEqual([...entries.keys()], ['victim', '2', '3']);
    drop();
    assert.deepEqual([...entries.keys()], ['victim', '3']);
    dropOfLargestOwner(entries, (_, key) => key);
    assert.deepEqual([...entries.keys()], ['3']);
  });
});
