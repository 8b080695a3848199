import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  describeAnswer,
  hourMs,
  minuteMs,
  openTokenStand,
  pass,
  type Failure,
  type TokenStand,
} from '../../support/token-stand.ts';

const down: Failure = { name: 'down', cooldownMs: 250 };
const throttled: Failure = { name: 'throttled', cooldownMs: 7_000 };

const deeds = {
  ask: (stand: TokenStand) => stand.tell('k'),
  'ask other': (stand: TokenStand) => stand.tell('other'),
  down: (stand: TokenStand) => void (stand.upstream.failure = down),
  throttle: (stand: TokenStand) => void (stand.upstream.failure = throttled),
  up: (stand: TokenStand) => void (stand.upstream.failure = undefined),
  'live 2 s': (stand: TokenStand) => void (stand.upstream.lifeMs = 2_000),
  'live 4 min': (stand: TokenStand) => void (stand.upstream.lifeMs = 4 * minuteMs),
  'live 1 h': (stand: TokenStand) => void (stand.upstream.lifeMs = hourMs),
  'live 4 h': (stand: TokenStand) => void (stand.upstream.lifeMs = 4 * hourMs),
  'renew in 2 h': (stand: TokenStand) => void (stand.upstream.refreshInMs = 2 * hourMs),
  unwant: (stand: TokenStand) => void stand.unwanted.add('k'),
  want: (stand: TokenStand) => void stand.unwanted.delete('k'),
  'clock +1 h': (stand: TokenStand) => {
    stand.clock.jumpWall(hourMs);
  },
  'clock -1 h': (stand: TokenStand) => {
    stand.clock.jumpWall(-hourMs);
  },
  // The same, and not the upstream's.
  'own clock +1 h': (stand: TokenStand) => {
    stand.clock.jumpWall(hourMs);
    stand.upstream.clockAheadMs += hourMs;
  },
  'own clock -1 h': (stand: TokenStand) => {
    stand.clock.jumpWall(-hourMs);
    stand.upstream.clockAheadMs -= hourMs;
  },
  wait: () => undefined,
} as const;

interface Row {
  /** Seconds, minutes or hours since the beginning. */
  readonly at: `${number} ${'s' | 'min' | 'h'}`;
  readonly do: keyof typeof deeds;
  /** What an `ask` is answered. */
  readonly expect?: string;
  /** Fetches upstream until then, this row's included. */
  readonly calls?: number;
}

const units = { s: 1_000, min: minuteMs, h: hourMs } as const;

function timeline(name: string, rows: readonly Row[]): void {
  it(name, async () => {
    const stand = openTokenStand();
    for (const row of rows) {
      const [amount = '', unit = ''] = row.at.split(' ');
      const atMs = Number(amount) * units[unit as keyof typeof units];
      await pass(stand.clock, atMs - stand.clock.monotonicMs());
      const told = await deeds[row.do](stand);
      await pass(stand.clock, 0);
      const where = `${row.at}: ${row.do}`;
      assert.equal(told, row.expect, where);
      if (row.calls !== undefined) assert.equal(stand.calls.length, row.calls, where);
    }
  });
}

describe('a token in the cache', () => {
  timeline('is renewed at half of its life without anyone waiting', [
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

  timeline('is left to expire when nobody used it for three hours, until somebody does', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '8.9 h', do: 'ask', expect: 'hit k#1' },
    { at: '13 h', do: 'wait', calls: 1 },
    { at: '13.5 h', do: 'ask', expect: 'hit k#1', calls: 2 },
    { at: '13.6 h', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);

  timeline('is not renewed when no live pod wants it, and is when one does again', [
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

  timeline('is gone at its end if nobody renews it', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '23.99 h', do: 'down' },
    { at: '23.99 h', do: 'ask', expect: 'stale k#1' },
    { at: '24 h', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('serves through an outage of 30 minutes, to its last second if need be', [
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

  timeline('is renewed soon after an outage, by itself', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '11 h', do: 'ask', expect: 'hit k#1' },
    { at: '11 h', do: 'down' },
    // At 12 h and then after 3.75, 7.5, 15, 30, 60, 120 s and every 225 s.
    { at: '12.5 h', do: 'ask', expect: 'hit k#1', calls: 14 },
    { at: '12.5 h', do: 'up' },
    { at: '12.6 h', do: 'ask', expect: 'hit k#15', calls: 15 },
    { at: '24.5 h', do: 'wait', calls: 15 },
  ]);

  timeline('that came with too little life is replaced within a second', [
    { at: '0 s', do: 'live 4 min' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '0 s', do: 'live 1 h' },
    { at: '1 s', do: 'ask', expect: 'hit k#2', calls: 2 },
    { at: '20 min', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);

  timeline('whose source has none with more life serves half of that after three tries', [
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

describe('an outage of 30 minutes', () => {
  for (const [how, latencyMs] of [
    ['refuses', 5],
    ['hangs', 9_000],
  ] as const) {
    it(`in which upstream ${how} fails no request whose token is valid`, async () => {
      const stand = openTokenStand();
      const endsAtMs = new Map<string, number>();
      for (let index = 0; index < 20; index++) {
        // Some end within the outage, some are due for renewal in it, some are not concerned.
        stand.upstream.lifeMs = (20 + 5 * index) * minuteMs;
        endsAtMs.set(`k${index}`, stand.clock.monotonicMs() + stand.upstream.lifeMs);
        await stand.ask(`k${index}`);
      }
      stand.upstream.failure = down;
      stand.upstream.latencyMs = latencyMs;
      let failed = 0;
      for (let atMs = 0; atMs < 30 * minuteMs; atMs += 20_000) {
        const asked = [...endsAtMs].map(async ([key, endMs]) => {
          const answer = await stand.ask(key);
          const isValid = stand.clock.monotonicMs() < endMs;
          assert.equal(answer.ok, isValid, `${key}: ${describeAnswer(answer)}`);
          if (!answer.ok) failed++;
        });
        await pass(stand.clock, 20_000);
        await Promise.all(asked);
      }
      assert.ok(failed > 0, 'of the tokens that ended');
      stand.upstream.failure = undefined;
      stand.upstream.latencyMs = 5;
      await pass(stand.clock, 5 * minuteMs);
      for (const key of ['k6', 'k8']) assert.match(await stand.tell(key), /^hit/);
      assert.ok(stand.mostConcurrent() <= 4);
    });
  }
});

describe('a clock that is stepped', () => {
  timeline('an hour forward, serves nothing that it says is dead, and loses nothing', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '1 min', do: 'clock +1 h' },
    { at: '1 min', do: 'ask', expect: 'miss failed down', calls: 2 },
    { at: '2 min', do: 'ask', expect: 'negative failed down' },
    { at: '3 min', do: 'clock -1 h' },
    { at: '3 min', do: 'ask', expect: 'hit k#1' },
  ]);

  timeline('an hour forward, is overcome by another token', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'clock +1 h' },
    { at: '1 min', do: 'ask', expect: 'miss k#2' },
    { at: '2 min', do: 'clock -1 h' },
    { at: '54 min', do: 'ask', expect: 'hit k#3', calls: 3 },
  ]);

  timeline('an hour forward, costs a token of a day nothing', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 h', do: 'clock +1 h' },
    { at: '2 h', do: 'ask', expect: 'hit k#1' },
    { at: '11 h', do: 'ask', expect: 'hit k#1', calls: 1 },
    { at: '12 h', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);

  timeline('an hour back, lends no life', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '1 min', do: 'clock -1 h' },
    { at: '50 min', do: 'ask', expect: 'hit k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '60 min', do: 'ask', expect: 'miss failed down' },
    { at: '61 min', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('an hour ahead of the upstream, lets new tokens live as long as they do', [
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

  timeline('back from an hour ahead, loses no token that came meanwhile and lends it nothing', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'own clock +1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '1 min', do: 'own clock -1 h' },
    { at: '54 min', do: 'ask', expect: 'hit k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '60 min', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('an hour behind the upstream, lends new tokens no life', [
    { at: '0 s', do: 'live 1 h' },
    { at: '0 s', do: 'own clock -1 h' },
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'down' },
    { at: '54 min', do: 'ask', expect: 'hit k#1' },
    { at: '59 min', do: 'ask', expect: 'stale k#1' },
    { at: '60 min', do: 'ask', expect: 'miss failed down' },
    { at: '2 h', do: 'ask', expect: 'miss failed down' },
  ]);

  timeline('an hour back, loses nothing', [
    { at: '0 s', do: 'ask', expect: 'miss k#1' },
    { at: '1 min', do: 'clock -1 h' },
    { at: '11 h', do: 'ask', expect: 'hit k#1', calls: 1 },
    { at: '12 h', do: 'clock +1 h' },
    { at: '13 h', do: 'ask', expect: 'hit k#2', calls: 2 },
  ]);
});

describe('a failure', () => {
  timeline('that names 7 s is no call for 7 s, for its key alone', [
    { at: '0 s', do: 'throttle' },
    { at: '0 s', do: 'ask', expect: 'miss failed throttled', calls: 1 },
    { at: '0 s', do: 'up' },
    { at: '1 s', do: 'ask other', expect: 'miss other#2', calls: 2 },
    { at: '6.999 s', do: 'ask', expect: 'negative failed throttled', calls: 2 },
    { at: '7 s', do: 'ask', expect: 'miss k#3', calls: 3 },
  ]);

  timeline('after failures is held longer each time, up to 10 s, and a success ends that', [
    { at: '0 s', do: 'down' },
    { at: '0 s', do: 'ask', expect: 'miss failed down', calls: 1 },
    { at: '0.249 s', do: 'ask', expect: 'negative failed down', calls: 1 },
    { at: '0.25 s', do: 'ask', expect: 'miss failed down', calls: 2 },
    { at: '0.749 s', do: 'ask', expect: 'negative failed down', calls: 2 },
    { at: '0.75 s', do: 'ask', expect: 'miss failed down', calls: 3 },
    { at: '2 s', do: 'ask', expect: 'miss failed down' },
    { at: '10 s', do: 'ask', expect: 'miss failed down' },
    { at: '20 s', do: 'ask', expect: 'miss failed down' },
    { at: '30 s', do: 'ask', expect: 'miss failed down', calls: 7 },
    { at: '39.999 s', do: 'ask', expect: 'negative failed down', calls: 7 },
    { at: '40 s', do: 'up' },
    { at: '40 s', do: 'live 2 s' },
    { at: '40 s', do: 'ask', expect: 'miss k#8' },
    { at: '40 s', do: 'down' },
    { at: '42 s', do: 'ask', expect: 'miss failed down', calls: 10 },
    { at: '42.499 s', do: 'ask', expect: 'negative failed down', calls: 10 },
    { at: '42.5 s', do: 'ask', expect: 'miss failed down', calls: 11 },
  ]);

  it('tells how long it is held', async () => {
    const stand = openTokenStand();
    stand.upstream.failure = throttled;
    const first = await stand.ask('k');
    await pass(stand.clock, 2_500);
    const second = await stand.ask('k');
    assert.ok(!first.ok && !second.ok);
    assert.equal(first.cooldownLeftMs, 7_000);
    assert.equal(second.cooldownLeftMs, 4_500);
  });

  it('of a source that throws frees the key, and reaches those who have nothing else', async () => {
    const stand = openTokenStand();
    stand.upstream.error = new Error('bug');
    await Promise.all([
      assert.rejects(stand.ask('k'), /bug/),
      assert.rejects(stand.ask('k'), /bug/),
    ]);
    assert.equal(stand.calls.length, 1);
    assert.equal(stand.bugs.length, 1);
    stand.upstream.error = undefined;
    stand.upstream.lifeMs = hourMs;
    assert.equal(await stand.tell('k'), 'miss k#2');
    stand.upstream.error = new Error('bug');
    await pass(stand.clock, 30 * minuteMs);
    assert.equal(stand.bugs.length, 2, 'the background refresh threw');
    assert.equal(await stand.tell('k'), 'hit k#2');
    await pass(stand.clock, 26 * minuteMs);
    assert.equal(await stand.tell('k'), 'stale k#2');
  });

  it('of a token that is dead on arrival is told as such, and never served', async () => {
    const stand = openTokenStand();
    stand.upstream.lifeMs = 0;
    assert.equal(await stand.tell('k'), 'miss failed expired');
    assert.equal(stand.cache.size, 0);
  });
});

describe('callers that come together', () => {
  it('a thousand for one key are one call, answered when it is', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 50;
    const answeredAtMs: number[] = [];
    const answers = Array.from({ length: 1_000 }, async () => {
      const told = await stand.tell('k');
      answeredAtMs.push(stand.clock.monotonicMs());
      return told;
    });
    assert.deepEqual(stand.cache.stats, { negative: 0, inflight: 1, waiting: 1_000 });
    assert.equal(stand.clock.armed.length, 2, 'one timer of the cache beside the upstream’s');
    await pass(stand.clock, 50);
    assert.equal(answeredAtMs.length, 1_000);
    assert.ok(answeredAtMs.every((atMs) => atMs === 50));
    const told = await Promise.all(answers);
    assert.equal(told.filter((text) => text === 'miss k#1').length, 1);
    assert.equal(told.filter((text) => text === 'coalesced k#1').length, 999);
    assert.equal(stand.calls.length, 1);
  });

  it('a thousand are one call when it fails, too', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 2_500;
    stand.upstream.failure = { name: 'down', cooldownMs: 0 };
    const answers = Array.from({ length: 1_000 }, () => stand.tell('k'));
    await pass(stand.clock, 2_500);
    const told = await Promise.all(answers);
    assert.ok(told.every((text) => text.endsWith('failed down')));
    assert.equal(stand.calls.length, 1);
  });

  it('for fifty keys at once never make more than 4 calls at once or 20 in a second', async () => {
    for (const latencyMs of [1, 30, 400]) {
      const stand = openTokenStand();
      stand.upstream.latencyMs = latencyMs;
      const answers = Array.from({ length: 50 }, (_, index) => stand.tell(`k${index}`));
      await pass(stand.clock, 10_000);
      const told = await Promise.all(answers);
      assert.ok(told.every((text, index) => text.startsWith(`miss k${index}#`)));
      assert.equal(stand.calls.length, 50);
      assert.ok(stand.mostConcurrent() <= 4);
      for (const [index, call] of stand.calls.entries()) {
        assert.equal(call.key, `k${index}`, 'first come, first served');
        const later = stand.calls[index + 20];
        assert.ok(later === undefined || later.atMs - call.atMs >= 1_000);
      }
      const budgetMs = Math.max(2_100, 13 * latencyMs);
      assert.ok((stand.calls.at(-1)?.atMs ?? Infinity) <= budgetMs, 'no slower than need be');
    }
  });

  it('go before background refreshes, and take along what they join', async () => {
    const stand = openTokenStand();
    stand.upstream.lifeMs = hourMs;
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await stand.ask(key);
      await pass(stand.clock, 1);
    }
    stand.upstream.latencyMs = 100;
    await pass(stand.clock, 30 * minuteMs);
    assert.equal(stand.limiter.running, 4);
    assert.equal(stand.limiter.queued, 2);
    const before = stand.calls.length;
    const caller = stand.tell('new');
    stand.clock.jumpWall(28 * minuteMs);
    const joined = stand.tell('f');
    await pass(stand.clock, 1_000);
    assert.equal(await caller, `miss new#${before + 1}`);
    assert.equal(await joined, `coalesced f#${before + 2}`);
    assert.deepEqual(
      stand.calls.slice(before).map(({ key }) => key),
      ['new', 'f', 'e'],
    );
    assert.deepEqual(
      stand.refreshes,
      Array.from({ length: 6 }, () => 'ok'),
    );
  });

  it('beyond what the queue and the waiting room hold are told so at once', async () => {
    const stand = openTokenStand({ maxQueued: 2, maxWaiters: 8 });
    stand.upstream.latencyMs = 100;
    const answers = Array.from({ length: 8 }, (_, index) => stand.tell(`k${index}`));
    assert.equal(await answers[7], 'overloaded failed overloaded');
    const joined = [stand.tell('k0'), stand.tell('k0'), stand.tell('k0')];
    assert.equal(await joined[2], 'overloaded failed overloaded');
    await pass(stand.clock, 300);
    assert.equal(await joined[1], 'coalesced k0#1');
    assert.equal(await answers[5], 'miss k5#6');
    assert.deepEqual(stand.cache.stats, { negative: 0, inflight: 0, waiting: 0 });
  });
});

describe('a caller', () => {
  it('waits as long as it has time; the fetch goes on without it', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 3_000;
    const hasty = stand.tell('k', 500);
    const patient = stand.tell('k');
    await pass(stand.clock, 499);
    assert.equal(stand.cache.stats.waiting, 2);
    await pass(stand.clock, 1);
    assert.equal(await hasty, 'timeout failed late');
    await pass(stand.clock, 2_500);
    assert.equal(await patient, 'coalesced k#1');
    assert.equal(await stand.tell('k'), 'hit k#1');
  });

  it('is kept by a fetch that nobody waits for any more', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 3_000;
    const hasty = stand.tell('k', 500);
    await pass(stand.clock, 3_000);
    assert.equal(await hasty, 'timeout failed late');
    assert.equal(await stand.tell('k'), 'hit k#1');
  });

  it('gets the valid token after a second when the refresh it waits for takes longer', async () => {
    const stand = openTokenStand({ usedWithinMs: 0 });
    stand.upstream.lifeMs = hourMs;
    await stand.ask('k');
    await pass(stand.clock, 56 * minuteMs);
    stand.upstream.latencyMs = 9_000;
    const answer = stand.tell('k');
    await pass(stand.clock, 999);
    assert.equal(stand.cache.stats.waiting, 1);
    await pass(stand.clock, 1);
    assert.equal(await answer, 'stale k#1');
    await pass(stand.clock, 8_000);
    assert.equal(await stand.tell('k'), 'hit k#2');
  });
});

describe('dropping', () => {
  it('forgets tokens and holds of what it is told, and nothing else', async () => {
    const stand = openTokenStand();
    await stand.ask('a');
    await stand.ask('b');
    stand.upstream.failure = throttled;
    await stand.ask('held');
    stand.cache.drop(({ key }) => key !== 'b');
    stand.upstream.failure = undefined;
    assert.equal(stand.cache.peek('a'), undefined);
    assert.equal(stand.cache.peek('b')?.token.accessToken, 'b#2');
    assert.equal(await stand.tell('held'), 'miss held#4');
    await pass(stand.clock, 13 * hourMs);
    assert.ok(!stand.calls.slice(4).some(({ key }) => key === 'a'), 'a is not renewed');
  });

  it('keeps nothing of a fetch under way; who asks later gets a fetch of its own', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 100;
    const before = stand.tell('k');
    stand.cache.drop(() => true);
    const after = [stand.tell('k'), stand.tell('k'), stand.tell('k', 150)];
    await pass(stand.clock, 100);
    assert.equal(await before, 'miss k#1');
    assert.equal(stand.cache.size, 0);
    assert.equal(stand.calls.length, 2, 'never two at once for one key');
    await pass(stand.clock, 100);
    assert.deepEqual(await Promise.all(after), [
      'miss k#2',
      'coalesced k#2',
      'timeout failed late',
    ]);
    assert.equal(stand.cache.peek('k')?.token.accessToken, 'k#2');
  });

  for (const [how, afterMs, request] of [
    ['has too little life left to be served', 55.5 * minuteMs, 'get'],
    ['a caller has made anew', 10 * minuteMs, 'renew'],
  ] as const) {
    it(`judges a token that ${how} and the fetch of its successor alike`, async () => {
      // Requests of one key that differ in what `drop` goes by, as those of excepted pods do.
      const stand = openTokenStand();
      const { cache } = stand;
      const asExcepted = { key: 'k', isExcepted: true };
      const asBound = { key: 'k', isExcepted: false };
      stand.upstream.lifeMs = hourMs;
      stand.unwanted.add('k');
      await cache.get(asExcepted);
      await pass(stand.clock, afterMs);
      stand.upstream.latencyMs = 100;
      const waiting = [cache[request](asBound, 10_000), cache[request](asExcepted, 10_000)];
      cache.drop((each) => 'isExcepted' in each && each.isExcepted === false);
      await pass(stand.clock, 100);
      const tokens = await Promise.all(waiting);
      assert.deepEqual(tokens.map(describeAnswer), ['miss k#2', 'coalesced k#2']);
      assert.deepEqual(stand.bugs, []);
      assert.equal(await stand.tell('k'), 'hit k#2');
      await pass(stand.clock, 2 * hourMs);
      assert.equal(cache.size, 0, 'nothing is kept past its end');
    });
  }

  it('calls off a refresh that waits for its turn', async () => {
    const stand = openTokenStand();
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) await stand.ask(key);
    await pass(stand.clock, 10 * hourMs);
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) await stand.ask(key);
    stand.upstream.latencyMs = 100;
    await pass(stand.clock, 2 * hourMs);
    assert.equal(stand.limiter.queued, 2);
    stand.cache.drop(() => true);
    assert.equal(stand.limiter.queued, 0);
    await pass(stand.clock, 100);
    assert.equal(stand.calls.length, 10);
    assert.equal(stand.cache.size, 0);
    assert.ok(stand.cache.isEmpty);
  });
});

describe('a bug in the handling of one key', () => {
  it('costs its callers an error at most, and other keys nothing', async () => {
    const stand = openTokenStand({
      onRefresh: () => {
        throw new Error('a bug');
      },
    });
    stand.upstream.lifeMs = hourMs;
    for (const key of ['a', 'b']) await stand.ask(key);
    await pass(stand.clock, hourMs / 2);
    assert.equal(stand.bugs.length, 2);
    assert.equal(stand.cache.size, 0);
    assert.deepEqual([stand.limiter.running, stand.limiter.queued], [0, 0]);
    assert.equal(await stand.tell('a'), 'miss a#5');
  });
});

describe('the bounds of the cache', () => {
  it('keep what was used last, by reads as well', async () => {
    const stand = openTokenStand({ maxEntries: 2 });
    await stand.ask('a');
    await stand.ask('b');
    stand.cache.peek('a');
    await stand.ask('c');
    assert.equal(stand.cache.size, 2);
    assert.ok(stand.cache.peek('a') !== undefined && stand.cache.peek('b') === undefined);
  });

  it('do not count a background refresh as a use, nor let one bring back what was evicted', async () => {
    const stand = openTokenStand({ maxEntries: 2 });
    await stand.ask('a');
    await stand.ask('b');
    await pass(stand.clock, 10 * hourMs);
    for (const key of ['a', 'b']) await stand.ask(key);
    stand.upstream.latencyMs = 100;
    await pass(stand.clock, 2 * hourMs + 50);
    assert.equal(stand.limiter.running, 2);
    stand.upstream.latencyMs = 10;
    const newcomer = stand.tell('c');
    await pass(stand.clock, 10);
    assert.equal(await newcomer, 'miss c#5');
    assert.equal(stand.limiter.running, 2);
    await pass(stand.clock, 100);
    assert.equal(stand.cache.size, 2);
    assert.ok(stand.cache.peek('a') === undefined && stand.cache.peek('b') !== undefined);
  });

  it('let one group displace its own tokens only, the one used longest ago first', async () => {
    const groupOf = ({ key }: { readonly key: string }): string => key[0] ?? '';
    const stand = openTokenStand({ groupOf, maxPerGroup: 2 });
    for (const key of ['a1', 'b1', 'a2']) {
      await stand.ask(key);
      await pass(stand.clock, 1_000);
    }
    stand.cache.peek('a1');
    await stand.ask('a3');
    const kept = ['a1', 'a2', 'a3', 'b1'].filter((key) => stand.cache.peek(key) !== undefined);
    assert.deepEqual(kept, ['a1', 'a3', 'b1']);
    stand.cache.drop(({ key }) => key === 'a3');
    await stand.ask('a2');
    assert.ok(stand.cache.peek('a1') !== undefined, 'one that was dropped does not count');
  });

  it('hold the failures of many keys', async () => {
    const stand = openTokenStand({ maxEntries: 3 });
    stand.upstream.failure = throttled;
    for (let index = 0; index < 10; index++) await stand.ask(`k${index}`);
    assert.equal(stand.cache.stats.negative, 3);
  });

  it('arm no timer beyond what a platform timer can hold', async () => {
    const stand = openTokenStand();
    stand.upstream.lifeMs = 10 * 365 * 24 * hourMs;
    await stand.ask('k');
    await pass(stand.clock, 11_000);
    const [armedMs = Infinity, ...others] = stand.clock.armed;
    assert.ok(armedMs < 2 ** 31 && others.length === 0);
  });
});

describe('a disposed cache', () => {
  it('has answered everyone, arms nothing and asks nothing', async () => {
    const stand = openTokenStand();
    await stand.ask('kept');
    stand.upstream.latencyMs = 100;
    const answers = Array.from({ length: 10 }, (_, index) => stand.tell(`k${index}`));
    assert.equal(stand.limiter.queued, 6);
    stand.cache[Symbol.dispose]();
    assert.equal(stand.limiter.queued, 0);
    assert.deepEqual(
      new Set(await Promise.all(answers)),
      new Set(['miss failed late']),
      'everyone is told',
    );
    assert.equal(stand.clock.armed.length, 4, 'only the fetches that run');
    await pass(stand.clock, 100);
    assert.deepEqual(stand.clock.armed, []);
    assert.equal(stand.calls.length, 5);
    assert.equal(stand.cache.size, 0);
    assert.equal(await stand.tell('kept'), 'timeout failed late');
    assert.deepEqual(stand.clock.armed, []);
  });
});
