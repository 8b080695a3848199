import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CodedError } from '../../src/base/coded-error.ts';

class OwnError extends CodedError<'A' | 'B'> {}

describe('an error with a code', () => {
  it('has the name of its class, and a cause where there is one', () => {
    const cause = new RangeError('cause');
    const error = new OwnError('A', 'text', cause);
    assert.deepEqual([error.name, error.code, error.message], ['OwnError', 'A', 'text']);
    assert.equal(error.cause, cause);
    assert.ok(!('cause' in new OwnError('B', 'text')));
  });
});
