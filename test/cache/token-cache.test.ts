import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { TokenCache, type Fetched } from '../../src/cache/token-cache.ts';
import { RenderedToken, type Token } from '../../src/cache/token.ts';
import { HandClock } from '../support/hand-clock.ts';

interface Failure {
  readonly name: string;
  readonly holdMs: number;
}

const hourS = 3600;

function tokenFor(clock: HandClock, name: string, lifeS = 24 * hourS): Token {
  const nowS = Math.floor(clock.wallMs() / 1000);
  return {
    accessToken: name,
    clientId: 'c',
    resource: 'r',
    expiresAtWallS: nowS + lifeS,
    notBeforeWallS: nowS,
    extExpiresAtWallS: undefined,
  };
}

function open(maxEntries = 100) {
  const clock = new HandClock();
  const cache = new TokenCache<Failure>({ clock, maxEntries, minLifeMs: 300_000 });
  const calls: string[] = [];
  const good = (key: string, lifeS?: number) => (): Promise<Fetched<Failure>> => {
    calls.push(key);
    return Promise.resolve({
      ok: true,
      token: tokenFor(clock, `${key}#${calls.length}`, lifeS),
    });
  };
  const bad =
    (key: string, holdMs = 0) =>
    (): Promise<Fetched<Failure>> => {
      calls.push(key);
      return Promise.resolve({ ok: false, failure: { name: key, holdMs } });
    };
  return { clock, cache, calls, good, bad };
}

function nameOf(result: Awaited<ReturnType<TokenCache<Failure>['get']>>): string {
  return result.ok ? result.rendered.token.accessToken : `failed ${result.failure.name}`;
}

describe('the token cache', () => {
  it('answers a second request from memory', async () => {
    const { cache, good, calls } = open();
    assert.equal((await cache.get('k', good('k'))).outcome, 'miss');
    assert.equal((await cache.get('k', good('k'))).outcome, 'hit');
    assert.equal(cache.peek('k')?.token.accessToken, 'k#1');
    assert.deepEqual(calls, ['k']);
  });

  it('makes one flight of a thousand concurrent misses, good or failing', async () => {
    for (const kind of ['good', 'bad'] as const) {
      const { cache, calls, ...make } = open();
      const all = await Promise.all(
        Array.from({ length: 1000 }, () => cache.get('k', make[kind]('k'))),
      );
      assert.equal(calls.length, 1);
      assert.equal(new Set(all.map(nameOf)).size, 1);
      assert.equal(all.filter(({ outcome }) => outcome === 'miss').length, 1);
    }
  });

  it('asks again below five minutes of life, keeps the token if that fails, never past its end', async () => {
    const { cache, clock, good, bad } = open();
    await cache.get('k', good('k', hourS));
    clock.advance((hourS - 301) * 1000);
    assert.equal((await cache.get('k', bad('k'))).outcome, 'hit');
    clock.advance(2_000);
    assert.equal(cache.peek('k'), undefined);
    const stale = await cache.get('k', bad('k'));
    assert.equal(stale.outcome, 'stale');
    assert.equal(nameOf(stale), 'k#1');
    clock.advance(299_000);
    assert.equal(nameOf(await cache.get('k', bad('k'))), 'failed k');
    assert.equal(nameOf(await cache.get('k', good('k'))), 'k#4');
  });

  it('does not serve a dead token after a clock step in either direction', async () => {
    const forward = open();
    await forward.cache.get('k', forward.good('k', hourS));
    forward.clock.jumpWall(2 * hourS * 1000);
    assert.equal(forward.cache.peek('k'), undefined);
    const back = open();
    await back.cache.get('k', back.good('k', hourS));
    back.clock.jumpWall(-2 * hourS * 1000);
    back.clock.advance(hourS * 1000);
    assert.equal(back.cache.peek('k'), undefined);
    assert.equal(nameOf(await back.cache.get('k', back.bad('k'))), 'failed k');
  });

  it('remembers a failure for its hold time, for its own key alone', async () => {
    const { cache, clock, good, bad, calls } = open();
    await cache.get('a', bad('a', 7_000));
    assert.equal((await cache.get('a', good('a'))).outcome, 'held');
    assert.equal((await cache.get('b', good('b'))).outcome, 'miss');
    clock.advance(7_000);
    assert.equal((await cache.get('a', good('a'))).outcome, 'miss');
    assert.deepEqual(calls, ['a', 'b', 'a']);
  });

  it('forgets the least recently used first', async () => {
    const { cache, good } = open(2);
    await cache.get('a', good('a'));
    await cache.get('b', good('b'));
    cache.peek('a');
    await cache.get('c', good('c'));
    assert.equal(cache.size, 2);
    assert.ok(cache.peek('a') !== undefined && cache.peek('b') === undefined);
  });

  it('drops what it is told to', async () => {
    const { cache, good } = open();
    await cache.get('a', good('a'));
    await cache.get('b', good('b'));
    cache.drop((key) => key === 'a');
    assert.ok(cache.peek('a') === undefined && cache.peek('b') !== undefined);
  });

  it('is free for the next flight when a fetch breaks', async () => {
    const { cache, good } = open();
    await assert.rejects(
      cache.get('k', () => Promise.reject(new Error('bug'))),
      /bug/,
    );
    assert.equal((await cache.get('k', good('k'))).outcome, 'miss');
  });

  it('has one flight a key, right keys and live tokens under any order of completion', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.boolean()), { maxLength: 30 }),
        async (scheduler, requests) => {
          const { cache, clock } = open(2);
          const flying = new Map<string, number>();
          const answers = requests.map(([key, isGood]) =>
            cache.get(key, async (): Promise<Fetched<Failure>> => {
              assert.equal(flying.get(key) ?? 0, 0);
              flying.set(key, 1);
              await scheduler.schedule(Promise.resolve(), key);
              flying.set(key, 0);
              return isGood
                ? { ok: true, token: tokenFor(clock, key) }
                : { ok: false, failure: { name: key, holdMs: 0 } };
            }),
          );
          await scheduler.waitIdle();
          const results = await Promise.all(answers);
          results.forEach((result, index) => {
            assert.ok(nameOf(result).endsWith(requests[index]?.[0] ?? '?'));
          });
          assert.ok(cache.size <= 2);
        },
      ),
    );
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

  it('has the keys of the real service in its order, and strings only', () => {
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

  it('tells the time that is left, and never a negative one', () => {
    const rendered = new RenderedToken(token);
    assert.match(rendered.body(1_060_999), /"expires_in":"940","expires_on":"2000"/);
    assert.match(rendered.body(9_000_000), /"expires_in":"0"/);
  });

  it('does not show the token when it is serialised by accident', () => {
    assert.ok(!JSON.stringify({ token: new RenderedToken(token) }).includes('ey.J'));
  });
});
