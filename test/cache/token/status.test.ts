import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hourMs, minuteMs, openTokenFixture, pass } from '../../support/token-fixture.ts';

const failure = { name: 'down', cooldownMs: 4_000 };

function statusOf(fixture: ReturnType<typeof openTokenFixture>, key: string) {
  const statuses = fixture.cache.describe((request) => request.key === key);
  assert.ok(statuses.length <= 1);
  return statuses[0];
}

describe('the state of a key', () => {
  it('is empty for a key without requests', () => {
    assert.equal(statusOf(openTokenFixture(), 'k'), undefined);
  });

  it('is a running fetch, then a fresh token with its times', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.latencyMs = 100;
    const asked = fixture.ask('k');
    const none = { token: undefined, failure: undefined, cooldownLeftMs: 0 };
    assert.deepEqual(statusOf(fixture, 'k'), { request: { key: 'k' }, isFetching: true, ...none });
    await pass(fixture.clock, 100);
    await asked;
    await pass(fixture.clock, hourMs);
    const token = {
      state: 'fresh',
      expiresInMs: 23 * hourMs,
      isServed: true,
      refreshInMs: 11 * hourMs,
      failedRefreshes: 0,
    };
    assert.deepEqual(statusOf(fixture, 'k'), {
      request: { key: 'k' },
      isFetching: false,
      failure: undefined,
      cooldownLeftMs: 0,
      token,
    });
  });

  it('is the active failure during its cooldown, and then the last failure', async () => {
    const fixture = openTokenFixture();
    fixture.upstream.failure = failure;
    await fixture.ask('k');
    await pass(fixture.clock, 1_000);
    assert.equal(statusOf(fixture, 'k')?.cooldownLeftMs, 3_000);
    await pass(fixture.clock, 5_000);
    const later = statusOf(fixture, 'k');
    assert.equal(later?.failure, failure);
    assert.equal(later.cooldownLeftMs, 0);
    fixture.upstream.failure = undefined;
    await fixture.ask('k');
    assert.equal(statusOf(fixture, 'k')?.failure, undefined);
  });

  it('is a valid token although its refreshes fail, and one with too little life for a hit', async () => {
    const fixture = openTokenFixture();
    await fixture.ask('k');
    fixture.upstream.failure = failure;
    await pass(fixture.clock, 12 * hourMs - minuteMs);
    await fixture.ask('k');
    await pass(fixture.clock, 2 * minuteMs);
    const stale = statusOf(fixture, 'k');
    assert.equal(stale?.token?.state, 'stale');
    assert.ok(stale.token.failedRefreshes > 0 && stale.token.isServed);
    assert.equal(stale.failure, failure);
    await pass(fixture.clock, 12 * hourMs - 4 * minuteMs);
    const short = statusOf(fixture, 'k')?.token;
    assert.ok(short !== undefined && !short.isServed && short.expiresInMs > 0);
  });

  it('does not count as a use: an unused token is left to expire', async () => {
    const fixture = openTokenFixture();
    await fixture.ask('k');
    for (let hour = 0; hour < 13; hour++) {
      await pass(fixture.clock, hourMs);
      statusOf(fixture, 'k');
    }
    assert.equal(statusOf(fixture, 'k')?.token?.state, 'idle');
    assert.equal(statusOf(fixture, 'k')?.token?.refreshInMs, undefined);
    assert.equal(fixture.calls.length, 1);
  });

  it('is planned for a refresh again as soon as an idle token is used', async () => {
    const fixture = openTokenFixture();
    await fixture.ask('k');
    await pass(fixture.clock, 13 * hourMs);
    fixture.cache.peek('k');
    const token = statusOf(fixture, 'k')?.token;
    assert.deepEqual([token?.state, token?.refreshInMs], ['stale', 0]);
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
