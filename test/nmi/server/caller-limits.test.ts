import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CallerLimits, CallerRates } from '../../../src/nmi/server/caller-limits.ts';

describe('the limits of one caller', () => {
  it('count different tokens, and requests for the same one share a place', () => {
    const limits = new CallerLimits({ fetches: 2, waiting: 10, pendingObjects: 1 });
    const first = limits.beginFetch('a', 'one');
    const joined = limits.beginFetch('a', 'one');
    assert.ok(first !== undefined && joined !== undefined);
    assert.ok(limits.beginFetch('a', 'two') !== undefined);
    assert.equal(limits.beginFetch('a', 'three'), undefined);
    assert.ok(limits.beginFetch('b', 'three') !== undefined, 'of another caller');
    first();
    assert.equal(limits.beginFetch('a', 'three'), undefined, 'the other request still waits');
    joined();
    assert.ok(limits.beginFetch('a', 'three') !== undefined);
  });

  it('count the requests that wait for tokens, including those for the same one', () => {
    const limits = new CallerLimits({ fetches: 2, waiting: 2, pendingObjects: 1 });
    const first = limits.beginFetch('a', 'one');
    assert.ok(limits.beginFetch('a', 'one') !== undefined);
    assert.equal(limits.beginFetch('a', 'one'), undefined);
    first?.();
    assert.ok(limits.beginFetch('a', 'one') !== undefined);
  });

  it('report which caller exceeded which limit', () => {
    const beyond: string[] = [];
    const limits = new CallerLimits(
      { fetches: 1, waiting: 2, pendingObjects: 1 },
      (limitKey, limit) => beyond.push(`${limitKey} ${limit}`),
    );
    limits.beginFetch('a', 'one');
    limits.beginFetch('a', 'two');
    limits.beginFetch('a', 'one');
    limits.beginFetch('a', 'one');
    limits.beginWait('b');
    limits.beginWait('b');
    assert.deepEqual(beyond, ['a fetches', 'a waiting', 'b pendingObjects']);
  });

  it('count the requests that wait for an object', () => {
    const limits = new CallerLimits({ fetches: 1, waiting: 1, pendingObjects: 1 });
    const end = limits.beginWait('a');
    assert.equal(limits.beginWait('a'), undefined);
    assert.ok(limits.beginWait('b') !== undefined);
    end?.();
    assert.ok(limits.beginWait('a') !== undefined);
  });
});

describe('the rate of one caller', () => {
  it('is exceeded after the burst, until time has paid for it', () => {
    let nowMs = 5_000;
    const rates = new CallerRates(100, 3, () => nowMs);
    const times = (key: string, count: number) =>
      Array.from({ length: count }, () => rates.isBeyond(key)).filter(Boolean).length;
    assert.equal(times('a', 5), 2);
    assert.equal(times('b', 3), 0, 'another caller');
    nowMs += 20;
    assert.equal(times('a', 3), 1);
    nowMs += 60_000;
    assert.equal(times('a', 5), 2, 'no more than the burst is saved up');
  });

  it('is counted for a bounded number of callers, without losing those that are fast', () => {
    let nowMs = 0;
    const rates = new CallerRates(1, 1, () => nowMs);
    for (let count = 0; count < 1_024; count++) rates.isBeyond(`pod ${count}`);
    assert.equal(rates.isBeyond('late'), false);
    assert.equal(rates.isBeyond('late'), false, 'there is no room');
    assert.equal(rates.isBeyond('pod 0'), true);
    nowMs = 1_000;
    assert.equal(rates.isBeyond('late'), false);
    assert.equal(rates.isBeyond('late'), true);
  });
});
