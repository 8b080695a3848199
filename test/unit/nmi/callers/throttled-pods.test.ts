import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ThrottledPods } from '../../../../src/nmi/callers/throttled-pods.ts';
import { HandClock } from '../../../support/hand-clock.ts';

describe('the throttled pods', () => {
  it('are kept by limit for five minutes, with count and time', () => {
    const clock = new HandClock();
    using throttled = new ThrottledPods(clock);
    throttled.note('a', 'tokens');
    clock.advance(1_000);
    throttled.note('a', 'tokens');
    throttled.note('a', 'connections');
    clock.advance(2_000);
    assert.deepEqual(throttled.of('a'), [
      { limit: 'connections', count: 1, agoMs: 2_000 },
      { limit: 'tokens', count: 2, agoMs: 2_000 },
    ]);
    assert.deepEqual(throttled.of('b'), []);
    clock.advance(5 * 60_000 - 3_000);
    assert.deepEqual(
      throttled.of('a').map(({ limit }) => limit),
      ['connections'],
    );
    clock.advance(1_000);
    assert.deepEqual(throttled.of('a'), []);
    assert.deepEqual(clock.armed, []);
  });

  it('are limited in number, and the least recent one is dropped', () => {
    using throttled = new ThrottledPods(new HandClock());
    for (let pod = 0; pod < 2_000; pod++) throttled.note(`pod ${pod}`, 'tokens');
    assert.deepEqual(throttled.of('pod 0'), []);
    assert.equal(throttled.of('pod 1999').length, 1);
  });
});
