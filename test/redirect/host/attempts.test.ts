import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { collectErrors, createMutex } from '../../../src/redirect/host/attempts.ts';

describe('a redirect of several parts', () => {
  it('goes on after one that fails, and reports the first failure at the end', async () => {
    const attempts = collectErrors();
    const ran: string[] = [];
    const fail = (text: string) => async () => {
      ran.push(text);
      throw new RangeError(text);
    };
    attempts.throwFirst();
    assert.equal(await attempts.run(fail('one')), undefined);
    assert.equal(await attempts.run(async () => 'value'), 'value');
    assert.equal(await attempts.run(fail('two')), undefined);
    assert.deepEqual(ran, ['one', 'two']);
    assert.throws(() => attempts.throwFirst(), /RangeError: one/);
  });
});

describe('operations in turn', () => {
  it('run one after the other, also after one that failed', async () => {
    const inTurn = createMutex();
    const events: string[] = [];
    const work = (name: string, error?: Error) =>
      inTurn(async () => {
        events.push(`${name} begins`);
        await new Promise(setImmediate);
        events.push(`${name} ends`);
        if (error !== undefined) throw error;
        return name;
      });
    const [first, second, third] = await Promise.allSettled([
      work('first'),
      work('second', new RangeError('second')),
      work('third'),
    ]);
    assert.deepEqual(
      events,
      ['first', 'second', 'third'].flatMap((name) => [`${name} begins`, `${name} ends`]),
    );
    assert.deepEqual(
      [first.status, second.status, third.status],
      ['fulfilled', 'rejected', 'fulfilled'],
    );
  });
});
