import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readiness } from '../../../src/nmi/base/readiness.ts';

describe('readiness', () => {
  it('is everything that is missing in any part', () => {
    const condition = (name: string, problem?: string) => ({ name, problem: () => problem });
    assert.deepEqual(readiness([{}, { conditions: [condition('a')] }]), {
      ready: true,
      missing: {},
    });
    const parts = [
      { conditions: [condition('a'), condition('b', 'waits')] },
      { conditions: [condition('c', 'broken')] },
    ];
    assert.deepEqual(readiness(parts), { ready: false, missing: { b: 'waits', c: 'broken' } });
  });
});
