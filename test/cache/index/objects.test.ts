import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hasEnded } from '../../../src/cache/index/objects.ts';

describe('a pod', () => {
  it('has ended in the two final phases', () => {
    const phases = ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'] as const;
    assert.deepEqual(
      phases.filter((phase) => hasEnded({ phase })),
      ['Succeeded', 'Failed'],
    );
  });
});
