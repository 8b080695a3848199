import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SingleFlight } from '../../src/base/single-flight.ts';

function open() {
  const calls = new SingleFlight<string>();
  const begun: PromiseWithResolvers<string>[] = [];
  const begin = (): Promise<string> => {
    const call = Promise.withResolvers<string>();
    begun.push(call);
    return call.promise;
  };
  return { calls, begun, begin };
}

describe('shared calls', () => {
  it('run once at a time for a key, and again afterwards', async () => {
    const { calls, begun, begin } = open();
    const [first, second, other] = [
      calls.share('a', begin),
      calls.share('a', begin),
      calls.share('b', begin),
    ];
    assert.equal(begun.length, 2);
    assert.ok(calls.has('a') && calls.has('b') && !calls.has('c'));
    begun[0]?.resolve('one');
    begun[1]?.resolve('other');
    assert.deepEqual(await Promise.all([first, second, other]), ['one', 'one', 'other']);
    assert.ok(!calls.has('a'));
    void calls.share('a', begin);
    assert.equal(begun.length, 3);
  });

  it('fail for all waiters, and are started again', async () => {
    const { calls, begun, begin } = open();
    const both = [calls.share('a', begin), calls.share('a', begin)];
    begun[0]?.reject(new RangeError('why'));
    for (const each of both) await assert.rejects(each, /why/);
    assert.ok(!calls.has('a'));
  });

  it('continue for the others when one leaves', async () => {
    const { calls, begun, begin } = open();
    const leave = new AbortController();
    const leaving = calls.share('a', begin, leave.signal);
    const staying = calls.share('a', begin);
    leave.abort(new RangeError('left'));
    await assert.rejects(leaving, /left/);
    assert.ok(calls.has('a'));
    begun[0]?.resolve('one');
    assert.equal(await staying, 'one');
  });
});
