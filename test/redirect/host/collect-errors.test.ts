import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { collectErrors } from '../../../src/redirect/host/collect-errors.ts';

describe('an operation of several steps', () => {
  it('continues after one that fails, and reports the first failure at the end', async () => {
    const errors = collectErrors();
    const ran: string[] = [];
    const fail = (text: string) => async () => {
      ran.push(text);
      throw new RangeError(text);
    };
    errors.throwFirst();
    assert.equal(await errors.run(fail('one')), undefined);
    assert.equal(await errors.run(async () => 'value'), 'value');
    assert.equal(await errors.run(fail('two')), undefined);
    assert.deepEqual(ran, ['one', 'two']);
    assert.throws(() => errors.throwFirst(), /RangeError: one/);
  });
});
