import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CacheEntry } from '../../../../src/cache/token/entry.ts';
import {
  type Cooldown,
  type Keyed,
  NegativeCache,
} from '../../../../src/cache/token/negative-cache.ts';
import { refreshDelayMs, retryDelayMs } from '../../../../src/cache/token/refresh-policy.ts';
import { RenderedToken, type Token } from '../../../../src/cache/token/token.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { createToken, hourMs, minuteMs } from '../../../support/token-fixture.ts';

describe('the times of the next refresh', () => {
  it('are half of the life, plus or minus a tenth, or earlier if the source requests it', () => {
    for (const [lifeMs, requestedMs, random, delayMs] of [
      [24 * hourMs, Infinity, 0, 10.8 * hourMs],
      [24 * hourMs, Infinity, 0.5, 12 * hourMs],
      [24 * hourMs, Infinity, 1, 13.2 * hourMs],
      [24 * hourMs, 2 * hourMs, 0.5, 2 * hourMs],
      [24 * hourMs, 20 * hourMs, 0.5, 12 * hourMs],
      [24 * hourMs, -hourMs, 0.5, 10_000],
      [1_000, Infinity, 0.5, 10_000],
    ] as const) {
      assert.ok(Math.abs(refreshDelayMs(lifeMs, requestedMs, 0, random) - delayMs) < 1);
    }
  });

  it('come three times within a second, when tokens arrive with too little life', () => {
    assert.equal(refreshDelayMs(200_000, Infinity, 1, 0), 400);
    assert.equal(refreshDelayMs(200_000, Infinity, 3, 0.999), 799.6);
    assert.equal(refreshDelayMs(200_000, Infinity, 4, 0.5), 100_000);
  });

  it('grow with failures up to five minutes, half of each random', () => {
    assert.deepEqual([retryDelayMs(1, 0), retryDelayMs(1, 1)], [2_500, 5_000]);
    assert.deepEqual([retryDelayMs(3, 0), retryDelayMs(3, 1)], [10_000, 20_000]);
    for (const failures of [7, 100, 5_000]) {
      assert.equal(retryDelayMs(failures, 1), 5 * minuteMs);
    }
  });
});

describe('a rendered token', () => {
  const token: Token = {
    accessToken: 'ey.J"x',
    clientId: 'c',
    resource: 'https://x/?a="b"',
    expiresAtWallS: 2_000,
    notBeforeWallS: 900,
    extExpiresAtWallS: 2_600,
  };

  it('has the keys of the real service in its order, and only strings', () => {
    const body = JSON.parse(new RenderedToken(token).body(1_000_000)) as Record<string, unknown>;
    assert.deepEqual(body, {
      access_token: 'ey.J"x',
      client_id: 'c',
      expires_in: '1000',
      expires_on: '2000',
      ext_expires_in: '1600',
      not_before: '900',
      resource: 'https://x/?a="b"',
      token_type: 'Bearer',
    });
    assert.deepEqual(Object.keys(body), Object.keys(body).sort());
  });

  it('has no client id when its source returned none, and only its own extended life', () => {
    const bare = new RenderedToken({ ...token, clientId: '', extExpiresAtWallS: undefined });
    const body = JSON.parse(bare.body(1_000_000)) as Record<string, unknown>;
    assert.ok(!('client_id' in body));
    assert.deepEqual([body['expires_in'], body['ext_expires_in']], ['1000', '1000']);
  });

  it('contains the requested id, in alphabetical order', () => {
    const rendered = new RenderedToken(token);
    for (const [kind, name] of [
      ['object_id', 'object_id'],
      ['resource_id', 'msi_res_id'],
    ] as const) {
      assert.ok(!JSON.stringify({ rendered }).includes('ey.J'), 'not even by accident');
      const text = rendered.body(1_000_000, { kind, value: '/S/"é' });
      const body = JSON.parse(text) as Record<string, unknown>;
      assert.deepEqual(Object.keys(body), Object.keys(body).sort());
      const { [name]: asked, ...rest } = body;
      assert.equal(asked, '/S/"é');
      assert.deepEqual(rest, JSON.parse(rendered.body(1_000_000)));
    }
  });

  it('contains the time that is left, and never a negative one', () => {
    const rendered = new RenderedToken(token);
    assert.match(rendered.body(1_060_999), /"expires_in":"940","expires_on":"2000"/);
    assert.match(rendered.body(9_000_000), /"expires_in":"0"/);
  });

  it('that arrived while the clock was wrong reports no more time than the right clock would', () => {
    const leftAt = (clockAheadS: number, nowS: number): number => {
      const rendered = new RenderedToken({ ...token, clockAheadMs: clockAheadS * 1000 });
      const { expires_in: left, expires_on: end } = JSON.parse(rendered.body(nowS * 1000)) as {
        expires_in: string;
        expires_on: string;
      };
      assert.equal(end, '2000');
      return Number(left);
    };
    // An hour ahead: five minutes at most, so that nothing is kept if the clock is corrected.
    assert.deepEqual(
      [4_600, 5_299, 5_301, 5_599, 5_600, 9_000].map((nowS) => leftAt(3_600, nowS)),
      [300, 300, 299, 1, 0, 0],
    );
    assert.equal(leftAt(3_600, 1_000), 1_000, 'corrected');
    // Ten minutes ahead: the time by the wrong clock, while that is longer.
    assert.deepEqual(
      [1_600, 1_800, 2_200].map((nowS) => leftAt(600, nowS)),
      [400, 300, 300],
    );
    assert.deepEqual(
      [-2_600, -1_600].map((nowS) => leftAt(-3_600, nowS)),
      [1_000, 0],
    );
  });
});

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

  it('may rest twice, is due with its owner, and counts its first failure also from a rest', () => {
    const due: unknown[] = [];
    const { arrival } = open();
    const entry = new CacheEntry<Keyed>({ key: 'k' }, arrival(), (each) => due.push(each));
    entry.rest();
    entry.rest();
    assert.equal(entry.state, 'idle');
    entry.fire();
    assert.deepEqual(due, [entry]);
    assert.equal(entry.failRefresh(), 1);
  });
});

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
    assert.equal(breakers.size, 0, 'it is not remembered');
    assert.equal(holdsOf(breakers, clock, 250), 250);
  });
});
