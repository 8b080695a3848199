import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StartError } from '../../../src/nmi/base/start-error.ts';

describe('why the agent cannot run', () => {
  it('ends with what the machine said', () => {
    const cause = new RangeError('why');
    assert.equal(new StartError('UNAVAILABLE', 'text', cause).message, 'text: why');
    assert.equal(new StartError('UNAVAILABLE', 'text', cause).cause, cause);
    assert.equal(new StartError('CONFIG', 'text', 'no error').message, 'text');
    assert.equal(new StartError('CONFIG', 'text').code, 'CONFIG');
  });
});
