import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  NegativeCache,
  type Cooldown,
  type Keyed,
} from '../../../src/cache/token/negative-cache.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { minuteMs } from '../../support/token-fixture.ts';

describe('a remembered failure', () => {
  const request = { key: 'k' };
  const holdsOf = (
    breakers: NegativeCache<Keyed, Cooldown>,
    clock: HandClock,
    cooldownMs: number,
  ) => {
    breakers.fail(request, { cooldownMs });
    const heldMs = breakers.cooldownLeftMs('k');
    clock.advance(heldMs);
    assert.equal(breakers.activeFailure('k'), undefined);
    return heldMs;
  };

  it('has a longer cooldown each time in a row, up to ten seconds or its own minimum', () => {
    const clock = new HandClock();
    const breakers = new NegativeCache<Keyed, Cooldown>(clock, 10, () => '');
    const held = Array.from({ length: 8 }, () => holdsOf(breakers, clock, 250));
    assert.deepEqual(held, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    assert.equal(holdsOf(breakers, clock, 60_000), 60_000);
    breakers.reset('k');
    assert.equal(holdsOf(breakers, clock, 250), 250);
    assert.equal(holdsOf(breakers, clock, 250), 500);
    clock.advance(5 * minuteMs);
    assert.equal(holdsOf(breakers, clock, 250), 250, 'a pause resets the count');
  });

  it('applies to its own key only, and no longer than its cooldown', () => {
    const clock = new HandClock();
    const breakers = new NegativeCache<Keyed, Cooldown & { readonly name: string }>(
      clock,
      10,
      () => '',
    );
    const failure = { cooldownMs: 1_000, name: 'down' };
    breakers.fail(request, failure);
    assert.equal(breakers.activeFailure('k'), failure);
    assert.deepEqual([breakers.cooldownLeftMs('k'), breakers.cooldownLeftMs('other')], [1_000, 0]);
    assert.equal(breakers.activeFailure('other'), undefined);
    clock.advance(999);
    assert.equal(breakers.activeFailure('k'), failure);
    clock.advance(1);
    assert.equal(breakers.activeFailure('k'), undefined);
    assert.deepEqual([...breakers.all()], [{ request, failure, cooldownLeftMs: 0 }], 'remembered');
  });

  it('is dropped first when it is the oldest of too many', () => {
    const breakers = new NegativeCache<Keyed, Cooldown>(new HandClock(), 2, () => '');
    const failure = { cooldownMs: 1_000 };
    const keysOf = (): readonly string[] => [...breakers.all()].map((each) => each.request.key);
    for (const key of ['a', 'b', 'a', 'c']) breakers.fail({ key }, failure);
    assert.deepEqual(keysOf(), ['a', 'c']);
    breakers.drop(({ key }) => key === 'a');
    assert.deepEqual(keysOf(), ['c']);
  });

  it('of the owner with the most is dropped first, however old those of others are', () => {
    const ownerOf = ({ key }: Keyed): string => key.slice(0, 1);
    const breakers = new NegativeCache<Keyed, Cooldown>(new HandClock(), 3, ownerOf);
    for (const key of ['a1', 'b1', 'b2', 'b3', 'b4']) breakers.fail({ key }, { cooldownMs: 1_000 });
    assert.deepEqual(
      [...breakers.all()].map((each) => each.request.key),
      ['a1', 'b3', 'b4'],
    );
    assert.deepEqual(
      ['a1', 'b1'].map((key) => breakers.lastFailure(key)),
      [{ cooldownMs: 1_000 }, undefined],
    );
  });

  it('resets its count when a failure has no cooldown', () => {
    const clock = new HandClock();
    const breakers = new NegativeCache<Keyed, Cooldown>(clock, 10, () => '');
    assert.equal(holdsOf(breakers, clock, 250), 250);
    breakers.fail(request, { cooldownMs: 0 });
    assert.equal(holdsOf(breakers, clock, 250), 250);
  });

  it('that has no cooldown is not remembered', () => {
    const breakers = new NegativeCache<Keyed, Cooldown>(new HandClock(), 10, () => '');
    breakers.fail(request, { cooldownMs: 0 });
    assert.equal(breakers.size, 0);
  });
});
