import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StartError } from '../../src/base/start-error.ts';

describe('a start error', () => {
  it('names the problem, its cause and the remedy, in this order', () => {
    const cause = new RangeError('why');
    const error = new StartError('UNAVAILABLE', 'no x', 'set --x', cause);
    assert.equal(error.message, 'no x: why; set --x');
    assert.equal(error.cause, cause);
    assert.equal(new StartError('CONFIG', 'no x', 'set --x', 'no error').message, 'no x; set --x');
    assert.equal(new StartError('CONFIG', 'no x', 'set --x').code, 'CONFIG');
  });
});
