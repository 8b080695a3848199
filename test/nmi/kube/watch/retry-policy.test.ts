import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError, type KubeErrorDetails } from '../../../../src/nmi/kube/api/kube-error.ts';
import {
  closeDelayMs,
  noFailures,
  retryAfterFailure,
  type Failures,
  type ReflectorErrorCode,
} from '../../../../src/nmi/kube/watch/retry-policy.ts';

const timing = {
  backoff: { baseMs: 200, capMs: 10_000 },
  outage: { baseMs: 100, capMs: 500 },
  relistJitterMs: 600,
};

function retry(
  code: ReflectorErrorCode,
  details: KubeErrorDetails = {},
  before: Failures = noFailures,
  triedMs = 0,
) {
  const error = code === 'INTERNAL' ? new Error('bug') : new KubeError(code, 'failed', details);
  return retryAfterFailure(error, before, timing, triedMs, 0.5);
}

describe('the retry policy', () => {
  const rows: readonly [ReflectorErrorCode, KubeErrorDetails, string, boolean, number, boolean][] =
    [
      // code, details, kind, relists, waits in ms, wakes early
      ['NETWORK', {}, 'outage', false, 75, true],
      ['TIMEOUT', {}, 'outage', false, 75, true],
      ['SERVER', { status: 500 }, 'outage', false, 75, true],
      ['SERVER', { status: 503, retryAfterMs: 2000 }, 'outage', false, 2250, false],
      ['SERVER', { status: 400 }, 'refusal', true, 150, false],
      ['THROTTLED', { status: 429 }, 'refusal', false, 150, false],
      ['THROTTLED', { status: 429, retryAfterMs: 1000 }, 'refusal', false, 1125, false],
      ['UNAUTHORIZED', { status: 401 }, 'refusal', false, 150, false],
      ['FORBIDDEN', { status: 403 }, 'refusal', false, 150, false],
      ['NOT_FOUND', { status: 404 }, 'refusal', false, 150, false],
      ['CONFIG', {}, 'refusal', false, 150, false],
      ['MALFORMED', {}, 'refusal', true, 150, false],
      ['GONE', { status: 410 }, 'expiry', true, 300, false],
      ['INTERNAL', {}, 'exception', true, 150, false],
    ];
  for (const [code, details, kind, isRelist, delayMs, isWakeable] of rows) {
    it(`after ${code} ${JSON.stringify(details)} waits ${delayMs} ms for ${kind}`, () => {
      const failures = { kind, count: 1, waitedMs: 0 };
      assert.deepEqual(retry(code, details), { code, failures, isRelist, delayMs, isWakeable });
    });
  }

  it('counts failures of one kind only, and keeps the last wait', () => {
    const before: Failures = { kind: 'outage', count: 5, waitedMs: 70 };
    const again = { kind: 'outage', count: 6, waitedMs: 70 };
    assert.deepEqual(retry('TIMEOUT', {}, before).failures, again);
    assert.deepEqual(retry('FORBIDDEN', {}, before).failures, {
      ...again,
      kind: 'refusal',
      count: 1,
    });
  });

  it('subtracts the duration of the attempt from a wait in an outage', () => {
    assert.equal(retry('NETWORK', {}, noFailures, 50).delayMs, 25);
    assert.equal(retry('NETWORK', {}, noFailures, 700).delayMs, 0);
    assert.equal(retry('SERVER', { retryAfterMs: 2000 }, noFailures, 700).delayMs, 2250);
  });

  it('subtracts earlier waits from the spread of relists', () => {
    const waited: Failures = { kind: 'outage', count: 3, waitedMs: 250 };
    assert.equal(retry('GONE', {}, waited).delayMs, 50);
    assert.equal(retry('GONE', {}, { kind: 'expiry', count: 2, waitedMs: 250 }).delayMs, 600);
  });

  it('reopens a watch that was closed too early twice at once, and then within a second', () => {
    const delays = [1, 2, 3, 4, 5, 9].map((closes) => closeDelayMs(timing, closes, 1));
    assert.deepEqual(delays, [0, 0, 200, 400, 800, 1000]);
  });
});
