import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Breakers, type Held, type Keyed } from '../../../src/cache/token/negative-cache.ts';
import { CacheEntry } from '../../../src/cache/token/entry.ts';
import { RecencyList, type Linked } from '../../../src/cache/token/lru-list.ts';
import { refreshDelayMs, retryDelayMs } from '../../../src/cache/token/refresh-policy.ts';
import { RenderedToken } from '../../../src/cache/token/token.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createToken, hourMs, minuteMs } from '../../support/token-stand.ts';

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
  it('goes only the ways of its states, and none out of the last', () => {
    const { entry, arrival } = open();
    assert.equal(entry.state.kind, 'fresh');
    assert.throws(() => entry.failRefresh(), /cannot go from fresh to stale/);
    entry.beginRefresh();
    assert.throws(() => {
      entry.beginRefresh();
    }, /from refreshing to refreshing/);
    assert.throws(() => {
      entry.rest();
    }, /from refreshing to idle/);
    assert.equal(entry.failRefresh(), 1);
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 2, 'failures in a row add up');
    entry.rest();
    entry.wake();
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 1, 'a rest ends the row');
    entry.beginRefresh();
    entry.arrive(arrival());
    entry.beginRefresh();
    assert.equal(entry.failRefresh(), 1, 'a token ends the row');
    entry.die();
    for (const next of ['beginRefresh', 'failRefresh', 'rest', 'wake', 'die'] as const) {
      assert.throws(() => entry[next](), /from dead/);
    }
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

  it('is served down to five minutes, or to half of a life that was shorter', () => {
    assert.equal(open(5 * minuteMs + 1_000).entry.floorMs, 5 * minuteMs);
    assert.equal(open(4 * minuteMs).entry.floorMs, 2 * minuteMs);
  });
});

describe('the times to ask again', () => {
  it('are half of the life give or take a tenth, or earlier if the source said so', () => {
    assert.equal(refreshDelayMs(24 * hourMs, Infinity, 0, 0), 10.8 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, Infinity, 0, 0.5), 12 * hourMs);
    assert.ok(Math.abs(refreshDelayMs(24 * hourMs, Infinity, 0, 1) - 13.2 * hourMs) < 1);
    assert.equal(refreshDelayMs(24 * hourMs, 2 * hourMs, 0, 0.5), 2 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, 20 * hourMs, 0, 0.5), 12 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, -hourMs, 0, 0.5), 10_000);
    assert.equal(refreshDelayMs(1_000, Infinity, 0, 0.5), 10_000);
    // Three times within a second, when a token comes with too little life.
    assert.equal(refreshDelayMs(200_000, Infinity, 1, 0), 400);
    assert.equal(refreshDelayMs(200_000, Infinity, 3, 0.999), 799.6);
    assert.equal(refreshDelayMs(200_000, Infinity, 4, 0.5), 100_000);
  });

  it('grow with failures up to five minutes, half of each by chance', () => {
    assert.deepEqual([retryDelayMs(1, 0), retryDelayMs(1, 1)], [2_500, 5_000]);
    assert.deepEqual([retryDelayMs(3, 0), retryDelayMs(3, 1)], [10_000, 20_000]);
    for (const failures of [7, 100, 5_000]) {
      assert.equal(retryDelayMs(failures, 1), 5 * minuteMs);
    }
  });
});

describe('a remembered failure', () => {
  const request = { key: 'k' };
  const holdsOf = (breakers: Breakers<Keyed, Held>, clock: HandClock, holdMs: number) => {
    breakers.fail(request, { holdMs });
    const heldMs = breakers.heldForMs('k');
    clock.advance(heldMs);
    assert.equal(breakers.heldFailure('k'), undefined);
    return heldMs;
  };

  it('is held longer in a row, up to ten seconds or what it asks for itself', () => {
    const clock = new HandClock();
    const breakers = new Breakers<Keyed, Held>(clock, 10);
    const held = Array.from({ length: 8 }, () => holdsOf(breakers, clock, 250));
    assert.deepEqual(held, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    assert.equal(holdsOf(breakers, clock, 60_000), 60_000);
    breakers.reset('k');
    assert.equal(holdsOf(breakers, clock, 250), 250);
    assert.equal(holdsOf(breakers, clock, 250), 500);
    clock.advance(5 * minuteMs);
    assert.equal(holdsOf(breakers, clock, 250), 250, 'nobody asked for a while');
  });

  it('that asks for no hold is not remembered', () => {
    const breakers = new Breakers<Keyed, Held>(new HandClock(), 10);
    breakers.fail(request, { holdMs: 0 });
    assert.equal(breakers.size, 0);
  });
});

describe('the order of use', () => {
  it('is that of a list in which whatever is used goes to the end', () => {
    interface Item extends Linked<Item> {
      readonly name: number;
    }
    const anyStep = fc.record({ name: fc.nat(5), isDeleted: fc.boolean() });
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 60 }), (steps) => {
        const list = new RecencyList<Item>();
        const items = Array.from({ length: 6 }, (_, name): Item => {
          return { name, newer: undefined, older: undefined };
        });
        let model: number[] = [];
        for (const { name, isDeleted } of steps) {
          const item = items[name];
          assert.ok(item !== undefined);
          const isIn = model.includes(name);
          model = model.filter((other) => other !== name);
          if (isDeleted && isIn) list.delete(item);
          else if (!isDeleted) {
            if (isIn) list.touch(item);
            else list.add(item);
            model.push(name);
          }
          const order: number[] = [];
          for (let each = list.oldest; each !== undefined; each = each.newer) order.push(each.name);
          assert.deepEqual(order, model);
        }
      }),
    );
  });
});
