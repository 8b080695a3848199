import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hourMs, minuteMs, openTokenStand, pass } from '../../support/token-stand.ts';

const failure = { name: 'down', cooldownMs: 4_000 };

function statusOf(stand: ReturnType<typeof openTokenStand>, key: string) {
  const statuses = stand.cache.describe((request) => request.key === key);
  assert.ok(statuses.length <= 1);
  return statuses[0];
}

describe('where a key stands', () => {
  it('is nothing for a key that nobody asked for', () => {
    assert.equal(statusOf(openTokenStand(), 'k'), undefined);
  });

  it('is a fetch under way, then a fresh token with its times', async () => {
    const stand = openTokenStand();
    stand.upstream.latencyMs = 100;
    const asked = stand.ask('k');
    const none = { token: undefined, failure: undefined, cooldownLeftMs: 0 };
    assert.deepEqual(statusOf(stand, 'k'), { request: { key: 'k' }, isFetching: true, ...none });
    await pass(stand.clock, 100);
    await asked;
    await pass(stand.clock, hourMs);
    const token = {
      state: 'fresh',
      expiresInMs: 23 * hourMs,
      isServed: true,
      refreshInMs: 11 * hourMs,
      failedRefreshes: 0,
    };
    assert.deepEqual(statusOf(stand, 'k'), {
      request: { key: 'k' },
      isFetching: false,
      failure: undefined,
      cooldownLeftMs: 0,
      token,
    });
  });

  it('is the failure that is held, for as long as it is, and then the last one', async () => {
    const stand = openTokenStand();
    stand.upstream.failure = failure;
    await stand.ask('k');
    await pass(stand.clock, 1_000);
    assert.equal(statusOf(stand, 'k')?.cooldownLeftMs, 3_000);
    await pass(stand.clock, 5_000);
    const later = statusOf(stand, 'k');
    assert.equal(later?.failure, failure);
    assert.equal(later.cooldownLeftMs, 0);
    stand.upstream.failure = undefined;
    await stand.ask('k');
    assert.equal(statusOf(stand, 'k')?.failure, undefined);
  });

  it('is a token kept although its refreshes fail, and one too short to be served unasked', async () => {
    const stand = openTokenStand();
    await stand.ask('k');
    stand.upstream.failure = failure;
    await pass(stand.clock, 12 * hourMs - minuteMs);
    await stand.ask('k');
    await pass(stand.clock, 2 * minuteMs);
    const stale = statusOf(stand, 'k');
    assert.equal(stale?.token?.state, 'stale');
    assert.ok(stale.token.failedRefreshes > 0 && stale.token.isServed);
    assert.equal(stale.failure, failure);
    await pass(stand.clock, 12 * hourMs - 4 * minuteMs);
    const short = statusOf(stand, 'k')?.token;
    assert.ok(short !== undefined && !short.isServed && short.expiresInMs > 0);
  });

  it('does not count as use: what nobody asks for is left to expire', async () => {
    const stand = openTokenStand();
    await stand.ask('k');
    for (let hour = 0; hour < 13; hour++) {
      await pass(stand.clock, hourMs);
      statusOf(stand, 'k');
    }
    assert.equal(statusOf(stand, 'k')?.token?.state, 'idle');
    assert.equal(statusOf(stand, 'k')?.token?.refreshInMs, undefined);
    assert.equal(stand.calls.length, 1);
  });

  it('is told of the keys asked about alone, and never with the token', async () => {
    const stand = openTokenStand();
    for (const key of ['a', 'b', 'c']) await stand.ask(key);
    const keys = (isAsked: (key: string) => boolean) =>
      stand.cache.describe(({ key }) => isAsked(key)).map(({ request }) => request.key);
    assert.deepEqual(
      keys((key) => key !== 'b'),
      ['a', 'c'],
    );
    const text = JSON.stringify(stand.cache.describe(() => true));
    assert.ok(!text.includes('a#1'), 'as the stand calls its tokens');
  });
});
