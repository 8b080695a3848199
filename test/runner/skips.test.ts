import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import { Skips } from './skips.ts';

const ended = (skip?: string | true): TestEvent =>
  ({ type: 'test:pass', data: { name: 'a', file: 'a.test.ts', skip } }) as unknown as TestEvent;

describe('what a run has skipped', () => {
  it('is counted by reason, and only a reason of the list may be', () => {
    const skips = new Skips([{ reason: /^no moon/, why: 'it is day' }]);
    for (const skip of ['no moon: new', 'no sun', 'no sun', true, undefined] as const) {
      skips.add(ended(skip));
    }
    skips.add({ type: 'test:stdout', data: { message: 'a' } } as unknown as TestEvent);
    assert.deepEqual(skips.unlisted(), ['no sun', 'without a reason']);
    assert.equal(skips.summary(), 'SKIPPED: 1 × no moon: new; 2 × no sun; 1 × without a reason');
    assert.equal(new Skips([]).summary(), 'nothing was skipped');
  });
});
