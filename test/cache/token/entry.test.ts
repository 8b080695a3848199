import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Keyed } from '../../../src/cache/token/negative-cache.ts';
import { CacheEntry } from '../../../src/cache/token/entry.ts';
import { RenderedToken } from '../../../src/cache/token/token.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createToken, hourMs, minuteMs } from '../../support/token-fixture.ts';

function open(lifeMs = hourMs) {
  const clock = new HandClock();
  const arrival = () => ({
    rendered: new RenderedToken(createToken(clock, 't', lifeMs)),
    nowWallMs: clock.wallMs(),
    nowMs: clock.monotonicMs(),
    minLifeMs: 5 * minuteMs,
  });
  const entry = new CacheEntry<Keyed>({ key: 'k' }, arrival(), () => undefined);
  return { clock, entry, arrival };
}

describe('an entry of the cache', () => {
  it('counts failures in a row, until a token or a rest', () => {
    const { entry, arrival } = open();
    assert.equal(entry.state, 'fresh');
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 1);
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 2);
    entry.rest();
    entry.wake();
    assert.equal(entry.state, 'stale');
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 1, 'a rest resets the count');
    entry.beginRefresh();
    entry.arrive(arrival());
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 1, 'a token resets the count');
  });

  it('is served by the stricter clock and kept by the more lenient one', () => {
    for (const jumpMs of [hourMs / 2, -hourMs / 2]) {
      const { clock, entry } = open();
      clock.advance(10 * minuteMs);
      clock.jumpWall(jumpMs);
      const lives = [50 * minuteMs, 50 * minuteMs - jumpMs];
      assert.equal(entry.lifeMs(clock.wallMs(), clock.monotonicMs()), Math.min(...lives));
      assert.equal(entry.keptForMs(clock.wallMs(), clock.monotonicMs()), Math.max(...lives));
    }
  });

  it('is served down to five minutes, or to half of a shorter life', () => {
    assert.equal(open(5 * minuteMs + 1_000).entry.floorMs, 5 * minuteMs);
    assert.equal(open(5 * minuteMs).entry.floorMs, 2.5 * minuteMs);
    assert.equal(open(4 * minuteMs).entry.floorMs, 2 * minuteMs);
  });

  it('lives as long as its source granted, whatever the wall clock is on arrival', () => {
    const { clock, entry, arrival } = open(hourMs);
    clock.advance(minuteMs);
    const { rendered, ...rest } = arrival();
    const lives = new RenderedToken({ ...rendered.token, livesForS: 600 });
    entry.arrive({ ...rest, rendered: lives });
    assert.equal(entry.lifeMs(clock.wallMs(), clock.monotonicMs()), 10 * minuteMs);
    assert.equal(entry.keptForMs(clock.wallMs(), clock.monotonicMs()), hourMs);
  });

  it('may rest twice, and is due with its owner', () => {
    const due: unknown[] = [];
    const { arrival } = open();
    const entry = new CacheEntry<Keyed>({ key: 'k' }, arrival(), (each) => due.push(each));
    entry.rest();
    entry.rest();
    assert.equal(entry.state, 'idle');
    entry.fire();
    assert.deepEqual(due, [entry]);
  });

  it('counts failures in a row from the first, also when it was not refreshing before', () => {
    const { entry } = open();
    entry.rest();
    assert.equal(entry.failRefresh(), 1);
  });
});
