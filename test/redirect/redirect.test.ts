import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RedirectError } from '../../src/redirect/redirect.ts';

describe('a failure at the boundary of the kernel', () => {
  it('names its step and keeps its cause', () => {
    const cause = new Error('errno');
    const error = new RedirectError('BUSY', 'write rules', 'locked', cause);
    assert.deepEqual(
      [error.name, error.code, error.step, error.message],
      ['RedirectError', 'BUSY', 'write rules', 'write rules: locked'],
    );
    assert.equal(error.cause, cause);
    assert.ok(!('cause' in new RedirectError('BUSY', 'write rules', 'locked')));
  });
});
