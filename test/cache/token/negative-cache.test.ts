import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Breakers, type Held, type Keyed } from '../../../src/cache/token/negative-cache.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { minuteMs } from '../../support/token-stand.ts';

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

  it('answers for its own key alone, and for no longer than it is held', () => {
    const clock = new HandClock();
    const breakers = new Breakers<Keyed, Held & { readonly name: string }>(clock, 10);
    const failure = { holdMs: 1_000, name: 'down' };
    breakers.fail(request, failure);
    assert.equal(breakers.heldFailure('k'), failure);
    assert.deepEqual([breakers.heldForMs('k'), breakers.heldForMs('other')], [1_000, 0]);
    assert.equal(breakers.heldFailure('other'), undefined);
    clock.advance(999);
    assert.equal(breakers.heldFailure('k'), failure);
    clock.advance(1);
    assert.equal(breakers.heldFailure('k'), undefined);
    assert.deepEqual([...breakers.all()], [{ request, failure, heldForMs: 0 }], 'remembered');
  });

  it('is the first to be forgotten where it is the oldest of too many', () => {
    const breakers = new Breakers<Keyed, Held>(new HandClock(), 2);
    const failure = { holdMs: 1_000 };
    const keysOf = (): readonly string[] => [...breakers.all()].map((each) => each.request.key);
    for (const key of ['a', 'b', 'a', 'c']) breakers.fail({ key }, failure);
    assert.deepEqual(keysOf(), ['a', 'c']);
    breakers.drop(({ key }) => key === 'a');
    assert.deepEqual(keysOf(), ['c']);
  });

  it('ends its row when a failure asks for no hold', () => {
    const clock = new HandClock();
    const breakers = new Breakers<Keyed, Held>(clock, 10);
    assert.equal(holdsOf(breakers, clock, 250), 250);
    breakers.fail(request, { holdMs: 0 });
    assert.equal(holdsOf(breakers, clock, 250), 250);
  });

  it('that asks for no hold is not remembered', () => {
    const breakers = new Breakers<Keyed, Held>(new HandClock(), 10);
    breakers.fail(request, { holdMs: 0 });
    assert.equal(breakers.size, 0);
  });
});
