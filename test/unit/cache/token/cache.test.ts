import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  describeAnswer,
  type Failure,
  hourMs,
  minuteMs,
  openTokenFixture,
  pass,
  type TokenFixture,
} from '../../../support/token-fixture.ts';

const down: Failure = { name: 'down', cooldownMs: 250 };
const throttled: Failure = { name: 'throttled', cooldownMs: 7_000 };

type Deed = (fixture: TokenFixture, ms: number) => unknown;

/** Some are followed by a time, as in `live 4 h`. */
const deeds: Readonly<Record<string, Deed>> = {
  ask: (fixture) => fixture.request('k'),
  'ask other': (fixture) => fixture.request('other'),
  down: ({ upstream }) => void (upstream.failure = down),
  throttle: ({ upstream }) => void (upstream.failure = throttled),
  up: ({ upstream }) => void (upstream.failure = undefined),
  live: ({ upstream }, ms) => void (upstream.lifeMs = ms),
  'renew in': ({ upstream }, ms) => void (upstream.refreshInMs = ms),
  unwant: ({ unwanted }) => void unwanted.add('k'),
  want: ({ unwanted }) => void unwanted.delete('k'),
  clock: ({ clock }, ms) => clock.jumpWall(ms),
  // The same, while the upstream's clock stays right.
  'own clock': ({ clock, upstream }, ms) => {
    clock.jumpWall(ms);
    upstream.clockAheadMs += ms;
  },
  wait: () => undefined,
};

interface Row {
  /** Seconds, minutes or hours since the start. */
  readonly at: string;
  readonly do: string;
  /** The expected result of a request. */
  readonly expect?: string;
  /** Expected number of upstream fetches so far, this row included. */
  readonly calls?: number;
}

function msOf(time: string): number {
  const [amount, unit = ''] = time.split(' ');
  return Number(amount) * ({ s: 1_000, min: minuteMs, h: hourMs }[unit] ?? NaN);
}

function timeline(name: string, rows: readonly Row[]): void {
  it(name, async () => {
    const fixture = openTokenFixture();
    for (const row of rows) {
      await pass(fixture.clock, msOf(row.at) - fixture.clock.monotonicMs());
      const [, word = '', time = '0 s'] = /^(.*?)(?: ([-+]?\d+ \w+))?$/.exec(row.do) ?? [];
      const deed = deeds[word] ?? assert.fail(row.do);
      const told = await deed(fixture, msOf(time));
      await pass(fixture.clock, 0);
      const where = `${row.at}: ${row.do}`;
      assert.equal(told, row.expect, where);
      if (row.calls !== undefined) assert.equal(fixture.calls.length, row.calls, where);
    }
  });
}

/** Keys are `POD/NUMBER`, and all pods are of one namespace. */
const ofPods = {
  partyOf: ({ key }: { readonly key: string }) => ({
    namespace: 'n',
    pod: key.replace(/[/].*/, ''),
  }),
  maxEntries: 20_000,
};

describe('many hostile pods', () => {
  it('that wait do not use up the waiters', async () => {
    const fixture = openTokenFixture({ ...ofPods, maxQueued: 5_000 });
    fixture.upstream.latencyMs = 5;
    const storm = Array.from({ length: 10 * 512 }, (_, at) =>
      fixture.request(`hostile ${at % 10}/${Math.floor(at / 10) % 50}`),
    );
    assert.equal(fixture.cache.stats.waiting, 2_500, 'each of them is beyond its share');
    const wanted = Array.from({ length: 11 }, (_, at) => fixture.request(`user/${at % 2}`));
    assert.equal(await wanted[10], 'overloaded failed overloaded');
    await pass(fixture.clock, 3_000);
    assert.match((await wanted[0]) ?? '', /^miss user/);
    assert.match((await wanted[9]) ?? '', /^coalesced user/);
    await pass(fixture.clock, 10_000);
    await Promise.all(storm);
    assert.equal(fixture.cache.stats.waiting, 0);
    const alone = Array.from({ length: 512 }, (_, at) => fixture.request(`alone/${at % 50}`));
    assert.equal(fixture.cache.stats.waiting, 512);
    await pass(fixture.clock, 10_500);
    await Promise.all(alone);
    assert.equal(fixture.cache.stats.waiting, 0);
  });
});

describe('a token in the cache', () => {
  timeline('is renewed at half of its life without a waiter', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '11 h', do: 'ask', expect: 'hit k#1' },
    { at: '11.99 h', do: 'ask', expect: 'hit k#1', calls: 1 },
    { at: '12 h', do: 'ask', expect: 'hit k#2', calls: 2 },
    { at: '23.99 h', do: 'ask', expect: 'hit k#2', calls: 2 },
    { at: '24 h', do: 'ask', expect: 'hit k#3', calls: 3 },
  ]);

  timeline('is renewed when its source says so, if that is earlier', [
    { at: '0 s', do: 'renew in 2 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1.99 h', do: 'ask', expect: 'hit k#1', calls: 1 },
    { at: '2 h', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);

  timeline('is left to expire when it was unused for three hours, until its next use', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '8.9 h', do: 'ask', expect: 'hit k#1' },
    { at: '13 h', do: 'wait', calls: 1 },
    { at: '13.5 h', do: 'ask', expect: 'hit k#1', calls: 2 },
    { at: '13.6 h', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);

  timeline('is not renewed when no live pod needs it, and is when one does again', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '11 h', do: 'ask', expect: 'hit k#1' },
    { at: '11 h', do: 'unwant' },
    { at: '13 h', do: 'wait', calls: 1 },
    { at: '13 h', do: 'want' },
    { at: '13 h', do: 'ask', expect: 'hit k#1', calls: 2 },
    { at: '13 h', do: 'ask', expect: 'hit k#2' },
  ]);

  timeline('that a caller had to wait for counts as used then', [
    { at: '0 s', do: 'live 4 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '0 s', do: 'unwant' },
    { at: '3.95 h', do: 'ask', expect: 'miss k#2' },
    { at: '3.95 h', do: 'want' },
    { at: '6 h', do: 'ask', expect: 'hit k#3', calls: 3 },
  ]);

  timeline('serves through an outage of 30 minutes, to its last second if necessary', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '29 min', do: 'down' },
    { at: '30 min', do: 'ask', expect: 'hit k#1', calls: 2 },
    { at: '54 min', do: 'ask', expect: 'hit k#1' },
    { at: '55 min', do: 'ask', expect: 'hit k#1' },
    { at: '55.1 min', do: 'ask', expect: 'stale k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '59.1 min', do: 'up' },
    { at: '59.5 min', do: 'ask', expect: 'miss k#16' },
    { at: '61 min', do: 'ask', expect: 'hit k#16' },
  ]);

  timeline('without a longer one at its source serves for half of its life after three tries', [
    { at: '0 s', do: 'live 4 min' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 s', do: 'ask', expect: 'hit k#2', calls: 2 },
    { at: '1.8 s', do: 'ask', expect: 'hit k#4', calls: 4 },
    { at: '121 s', do: 'ask', expect: 'hit k#4', calls: 4 },
    { at: '122 s', do: 'ask', expect: 'hit k#5', calls: 5 },
    { at: '123 s', do: 'live 1 h' },
    { at: '242 s', do: 'ask', expect: 'hit k#6', calls: 6 },
    { at: '4 min', do: 'ask', expect: 'hit k#6', calls: 6 },
  ]);
});

describe('a clock that is stepped', () => {
  timeline('an hour forward, serves no token that has expired by it, and loses none', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '1 min', do: 'clock +1 h' },
    { at: '1 min', do: 'ask', expect: 'miss failed down', calls: 2 },
    { at: '2 min', do: 'ask', expect: 'negative failed down' },
    { at: '3 min', do: 'clock -1 h' },
    { at: '3 min', do: 'ask', expect: 'hit k#1' },
  ]);

  timeline('an hour ahead of the upstream, does not shorten new tokens', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'own clock +1 h' },
    { at: '1 min', do: 'ask', expect: 'miss k#2' },
    { at: '30 min', do: 'ask', expect: 'hit k#2', calls: 2 },
    { at: '32 min', do: 'down' },
    { at: '55 min', do: 'ask', expect: 'hit k#3', calls: 3 },
    { at: '90 min', do: 'ask', expect: 'stale k#3' },
    { at: '91 min', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('back from an hour ahead, loses no token that arrived meanwhile and extends none', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'own clock +1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '1 min', do: 'own clock -1 h' },
    { at: '54 min', do: 'ask', expect: 'hit k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '60 min', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('an hour behind the upstream, does not extend new tokens', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'own clock -1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '54 min', do: 'ask', expect: 'hit k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '60 min', do: 'ask', expect: 'miss failed down' },
    { at: '2 h', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('an hour back during a cooldown, postpones the next try as a first failure does', [
    { at: '0 s', do: 'live 5 s' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '0 s', do: 'throttle' },
    // The refresh fails at 0.6 s, and its cooldown ends at 7.6 s.
    { at: '1 s', do: 'clock -1 h', calls: 2 },
    // The token expires at 5 s, and the pause from then is 3.75 s.
    { at: '8.749 s', do: 'wait', calls: 2 },
    { at: '8.75 s', do: 'wait', calls: 3 },
  ]);
});

describe('a failure', () => {
  timeline('with a wait of 7 s prevents calls for 7 s, for its key only', [
    { at: '0 s', do: 'throttle' },
    { at: '0 s', do: 'ask', expect: 'miss failed throttled', calls: 1 },
    { at: '0 s', do: 'up' },
    { at: '1 s', do: 'ask other', expect: 'miss other#2', calls: 2 },
    { at: '6.999 s', do: 'ask', expect: 'negative failed throttled', calls: 2 },
    { at: '7 s', do: 'ask', expect: 'miss k#3', calls: 3 },
  ]);

  it('of a source that throws frees the key, and reaches only requests without a token', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.error = new Error('bug');
    await Promise.all([
      assert.rejects(fixture.ask('k'), /bug/),
      assert.rejects(fixture.ask('k'), /bug/),
    ]);
    assert.equal(fixture.calls.length, 1);
    assert.equal(fixture.bugs.length, 1);
    fixture.upstream.error = undefined;
    fixture.upstream.lifeMs = hourMs;
    assert.equal(await fixture.request('k'), 'miss k#2');
    fixture.upstream.error = new Error('bug');
    await pass(fixture.clock, 30 * minuteMs);
    assert.equal(fixture.bugs.length, 2, 'the background refresh threw');
    assert.equal(await fixture.request('k'), 'hit k#2');
    await pass(fixture.clock, 26 * minuteMs);
    assert.equal(await fixture.request('k'), 'stale k#2');
  });

  it('of a token that is expired on arrival is reported as such, and the token is never served', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.lifeMs = 0;
    assert.equal(await fixture.request('k'), 'miss failed expired');
    assert.equal(fixture.cache.size, 0);
  });
});

describe('concurrent callers', () => {
  for (const [how, failure] of [
    ['ends', undefined],
    ['fails', { name: 'down', cooldownMs: 0 }],
  ] as const) {
    it(`share one call, a thousand for one key, and are answered when it ${how}`, async () => {
      const fixture = openTokenFixture();
      Object.assign(fixture.upstream, { latencyMs: 50, failure });
      const answeredAtMs: number[] = [];
      const answers = Array.from({ length: 1_000 }, async () => {
        const told = await fixture.request('k');
        answeredAtMs.push(fixture.clock.monotonicMs());
        return told;
      });
      assert.deepEqual(fixture.cache.stats, { negative: 0, inflight: 1, waiting: 1_000 });
      assert.equal(fixture.clock.armed.length, 1_001, 'one timer for each beside the upstream’s');
      await pass(fixture.clock, 50);
      assert.deepEqual([answeredAtMs.length, ...new Set(answeredAtMs)], [1_000, 50]);
      const [first, ...others] = await Promise.all(answers);
      const told = failure === undefined ? 'k#1' : 'failed down';
      assert.deepEqual([first, ...new Set(others)], [`miss ${told}`, `coalesced ${told}`]);
      assert.equal(fixture.calls.length, 1);
    });
  }

  it('go before background refreshes, and move a refresh forward that they join', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.lifeMs = hourMs;
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await fixture.ask(key);
      await pass(fixture.clock, 1);
    }
    fixture.upstream.latencyMs = 100;
    await pass(fixture.clock, 30 * minuteMs);
    assert.equal(fixture.limiter.running, 4);
    assert.equal(fixture.limiter.queued, 2);
    const before = fixture.calls.length;
    const caller = fixture.request('new');
    fixture.clock.jumpWall(28 * minuteMs);
    const joined = fixture.request('f');
    await pass(fixture.clock, 1_000);
    assert.equal(await caller, `miss new#${before + 1}`);
    assert.equal(await joined, `coalesced f#${before + 2}`);
    assert.deepEqual(
      fixture.calls.slice(before).map(({ key }) => key),
      ['new', 'f', 'e'],
    );
    assert.deepEqual(
      fixture.refreshes,
      Array.from({ length: 6 }, () => 'ok'),
    );
  });

  it('beyond the limits of queue and waiters are refused at once', async () => {
    const fixture = openTokenFixture({ maxQueued: 2, maxWaiters: 8 });
    fixture.upstream.latencyMs = 100;
    const answers = Array.from({ length: 8 }, (_, index) => fixture.request(`k${index}`));
    assert.equal(await answers[7], 'overloaded failed overloaded');
    const joined = [fixture.request('k0'), fixture.request('k0'), fixture.request('k0')];
    assert.equal(await joined[2], 'overloaded failed overloaded');
    await pass(fixture.clock, 300);
    assert.equal(await joined[1], 'coalesced k0#1');
    assert.equal(await answers[5], 'miss k5#6');
    assert.deepEqual(fixture.cache.stats, { negative: 0, inflight: 0, waiting: 0 });
  });
});

describe('a caller', () => {
  it('waits no longer than its deadline; the fetch goes on without it', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.latencyMs = 3_000;
    const hasty = fixture.request('k', 500);
    const patient = fixture.request('k');
    await pass(fixture.clock, 499);
    assert.equal(fixture.cache.stats.waiting, 2);
    await pass(fixture.clock, 1);
    assert.equal(await hasty, 'timeout failed late');
    await pass(fixture.clock, 2_500);
    assert.equal(await patient, 'coalesced k#1');
    assert.equal(await fixture.request('k'), 'hit k#1');
  });

  it('gets the valid token after a second when the refresh that it waits for takes longer', async () => {
    const fixture = openTokenFixture({ usedWithinMs: 0 });
    fixture.upstream.lifeMs = hourMs;
    await fixture.ask('k');
    await pass(fixture.clock, 56 * minuteMs);
    fixture.upstream.latencyMs = 9_000;
    const answer = fixture.request('k');
    await pass(fixture.clock, 999);
    assert.equal(fixture.cache.stats.waiting, 1);
    await pass(fixture.clock, 1);
    assert.equal(await answer, 'stale k#1');
    await pass(fixture.clock, 8_000);
    assert.equal(await fixture.request('k'), 'hit k#2');
  });
});

describe('dropping', () => {
  it('removes the matching tokens and cooldowns, and nothing else', async () => {
    const fixture = openTokenFixture();
    for (const key of ['a', 'b']) await fixture.ask(key);
    fixture.upstream.failure = throttled;
    await fixture.ask('held');
    fixture.cache.drop(({ key }) => key !== 'b');
    fixture.upstream.failure = undefined;
    const kept = ['a', 'b'].map((key) => fixture.cache.peek(key)?.token.accessToken);
    assert.deepEqual(kept, [undefined, 'b#2']);
    assert.equal(await fixture.request('held'), 'miss held#4');
    await pass(fixture.clock, 13 * hourMs);
    assert.ok(!fixture.calls.slice(4).some(({ key }) => key === 'a'), 'a is not renewed');
  });

  it('keeps no result of a running fetch; a later request gets its own fetch', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.latencyMs = 100;
    const before = fixture.request('k');
    fixture.cache.drop(() => true);
    const after = [fixture.request('k'), fixture.request('k'), fixture.request('k', 150)];
    await pass(fixture.clock, 100);
    assert.equal(await before, 'miss k#1');
    assert.equal(fixture.cache.size, 0);
    assert.equal(fixture.calls.length, 2, 'never two at once for one key');
    await pass(fixture.clock, 100);
    assert.deepEqual(await Promise.all(after), [
      'miss k#2',
      'coalesced k#2',
      'timeout failed late',
    ]);
    assert.equal(fixture.cache.peek('k')?.token.accessToken, 'k#2');
  });

  for (const [how, afterMs, request] of [
    ['has too little life left to be served', 55.5 * minuteMs, 'get'],
    ['a caller has made anew', 10 * minuteMs, 'renew'],
  ] as const) {
    it(`treats a token that ${how} and the fetch of its successor alike`, async () => {
      // Requests of one key that the filter of `drop` distinguishes, as with those of excepted
      // pods.
      const fixture = openTokenFixture();
      const { cache } = fixture;
      const asExcepted = { key: 'k', isExcepted: true };
      const asBound = { key: 'k', isExcepted: false };
      fixture.upstream.lifeMs = hourMs;
      fixture.unwanted.add('k');
      await cache.get(asExcepted);
      await pass(fixture.clock, afterMs);
      fixture.upstream.latencyMs = 100;
      const waiting = [cache[request](asBound, 10_000), cache[request](asExcepted, 10_000)];
      cache.drop((each) => 'isExcepted' in each && each.isExcepted === false);
      await pass(fixture.clock, 100);
      const tokens = await Promise.all(waiting);
      assert.deepEqual(tokens.map(describeAnswer), ['miss k#2', 'coalesced k#2']);
      assert.deepEqual(fixture.bugs, []);
      assert.equal(await fixture.request('k'), 'hit k#2');
      await pass(fixture.clock, 2 * hourMs);
      assert.equal(cache.size, 0, 'nothing is kept after its end');
    });
  }

  it('cancels a refresh that is still queued', async () => {
    const fixture = openTokenFixture();
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) await fixture.ask(key);
    await pass(fixture.clock, 10 * hourMs);
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) await fixture.ask(key);
    fixture.upstream.latencyMs = 100;
    await pass(fixture.clock, 2 * hourMs);
    assert.equal(fixture.limiter.queued, 2);
    fixture.cache.drop(() => true);
    assert.equal(fixture.limiter.queued, 0);
    await pass(fixture.clock, 100);
    assert.equal(fixture.calls.length, 10);
    assert.equal(fixture.cache.size, 0);
    assert.ok(fixture.cache.isEmpty);
  });
});

describe('a bug in the handling of one key', () => {
  it('costs its callers at most an error, and does not affect other keys', async () => {
    const fixture = openTokenFixture({
      onRefresh: () => {
        throw new Error('a bug');
      },
    });
    fixture.upstream.lifeMs = hourMs;
    for (const key of ['a', 'b']) await fixture.ask(key);
    await pass(fixture.clock, hourMs / 2);
    assert.equal(fixture.bugs.length, 2);
    assert.equal(fixture.cache.size, 0);
    assert.deepEqual([fixture.limiter.running, fixture.limiter.queued], [0, 0]);
    assert.equal(await fixture.request('a'), 'miss a#5');
  });
});

describe('the bounds of the cache', () => {
  it('keep the most recently used entries, including those that were only read', async () => {
    const fixture = openTokenFixture({ maxEntries: 2 });
    await fixture.ask('a');
    await fixture.ask('b');
    fixture.cache.peek('a');
    await fixture.ask('c');
    assert.equal(fixture.cache.size, 2);
    assert.ok(fixture.cache.peek('a') !== undefined && fixture.cache.peek('b') === undefined);
  });

  it('do not count a background refresh as a use, and its result does not restore an evicted entry', async () => {
    const fixture = openTokenFixture({ maxEntries: 2 });
    await fixture.ask('a');
    await fixture.ask('b');
    await pass(fixture.clock, 10 * hourMs);
    for (const key of ['a', 'b']) await fixture.ask(key);
    fixture.upstream.latencyMs = 100;
    await pass(fixture.clock, 2 * hourMs + 50);
    assert.equal(fixture.limiter.running, 2);
    fixture.upstream.latencyMs = 10;
    const newcomer = fixture.request('c');
    await pass(fixture.clock, 10);
    assert.equal(await newcomer, 'miss c#5');
    assert.equal(fixture.limiter.running, 2);
    await pass(fixture.clock, 100);
    assert.equal(fixture.cache.size, 2);
    assert.ok(fixture.cache.peek('a') === undefined && fixture.cache.peek('b') !== undefined);
  });

  it('let a group displace only its own tokens, the least recently used one first', async () => {
    const groupOf = ({ key }: { readonly key: string }): string => key[0] ?? '';
    const fixture = openTokenFixture({ groupOf, maxPerGroup: 2 });
    for (const key of ['a1', 'b1', 'a2']) {
      await fixture.ask(key);
      await pass(fixture.clock, 1_000);
    }
    fixture.cache.peek('a1');
    await fixture.ask('a3');
    const kept = ['a1', 'a2', 'a3', 'b1'].filter((key) => fixture.cache.peek(key) !== undefined);
    assert.deepEqual(kept, ['a1', 'a3', 'b1']);
    fixture.cache.drop(({ key }) => key === 'a3');
    await fixture.ask('a2');
    assert.ok(fixture.cache.peek('a1') !== undefined, 'a dropped token does not count');
    await pass(fixture.clock, 1_000);
    fixture.cache.peek('a2');
    await fixture.ask('a4');
    assert.equal(fixture.cache.peek('a1'), undefined, 'one that was left still counts');
  });

  it('arm no timer longer than a platform timer allows', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.lifeMs = 10 * 365 * 24 * hourMs;
    await fixture.ask('k');
    await pass(fixture.clock, 11_000);
    const [armedMs = Infinity, ...others] = fixture.clock.armed;
    assert.ok(armedMs < 2 ** 31 && others.length === 0);
  });
});

function statusOf(fixture: TokenFixture, key: string) {
  const statuses = fixture.cache.describe((request) => request.key === key);
  assert.ok(statuses.length <= 1);
  return statuses[0];
}

describe('the state of a key', () => {
  it('is nothing, then a running fetch, then a fresh token with its times', async () => {
    const fixture = openTokenFixture();
    assert.equal(statusOf(fixture, 'k'), undefined);
    fixture.upstream.latencyMs = 100;
    const asked = fixture.ask('k');
    const none = { request: { key: 'k' }, failure: undefined, cooldownLeftMs: 0 };
    assert.deepEqual(statusOf(fixture, 'k'), { ...none, isFetching: true, token: undefined });
    await pass(fixture.clock, 100);
    await asked;
    await pass(fixture.clock, hourMs);
    const token = {
      state: 'fresh',
      ageMs: hourMs,
      expiresInMs: 23 * hourMs,
      isServed: true,
      refreshInMs: 11 * hourMs,
      failedRefreshes: 0,
    };
    assert.deepEqual(statusOf(fixture, 'k'), { ...none, isFetching: false, token });
  });

  it('is the active failure during its cooldown, and then the last failure', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.failure = throttled;
    await fixture.ask('k');
    await pass(fixture.clock, 1_000);
    assert.equal(statusOf(fixture, 'k')?.cooldownLeftMs, 6_000);
    await pass(fixture.clock, 6_000);
    const later = statusOf(fixture, 'k');
    assert.equal(later?.failure, throttled);
    assert.equal(later.cooldownLeftMs, 0);
    fixture.upstream.failure = undefined;
    await fixture.ask('k');
    assert.equal(statusOf(fixture, 'k')?.failure, undefined);
  });

  it('is a valid token although its refreshes fail, and one with too little life for a hit', async () => {
    const fixture = openTokenFixture();
    await fixture.ask('k');
    fixture.upstream.failure = down;
    await pass(fixture.clock, 12 * hourMs - minuteMs);
    await fixture.ask('k');
    await pass(fixture.clock, 2 * minuteMs);
    const stale = statusOf(fixture, 'k');
    assert.equal(stale?.token?.state, 'stale');
    assert.ok(stale.token.failedRefreshes > 0 && stale.token.isServed);
    assert.equal(stale.failure, down);
    await pass(fixture.clock, 12 * hourMs - 4 * minuteMs);
    const short = statusOf(fixture, 'k')?.token;
    assert.ok(short !== undefined && !short.isServed && short.expiresInMs > 0);
  });

  it('does not count as a use: an unused token is idle, until its next use', async () => {
    const fixture = openTokenFixture();
    await fixture.ask('k');
    for (let hour = 0; hour < 13; hour++) {
      await pass(fixture.clock, hourMs);
      statusOf(fixture, 'k');
    }
    const planned = () => {
      const token = statusOf(fixture, 'k')?.token;
      return [token?.state, token?.refreshInMs];
    };
    assert.deepEqual(planned(), ['idle', undefined]);
    fixture.cache.peek('k');
    assert.deepEqual(planned(), ['stale', 0]);
  });

  it('includes only the matching keys, and never the token', async () => {
    const fixture = openTokenFixture();
    for (const key of ['a', 'b', 'c']) await fixture.ask(key);
    const keys = (isAsked: (key: string) => boolean) =>
      fixture.cache.describe(({ key }) => isAsked(key)).map(({ request }) => request.key);
    assert.deepEqual(
      keys((key) => key !== 'b'),
      ['a', 'c'],
    );
    const text = JSON.stringify(fixture.cache.describe(() => true));
    assert.ok(!text.includes('a#1'), 'the token names of the fixture');
  });
});
