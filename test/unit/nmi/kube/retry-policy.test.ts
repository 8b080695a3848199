import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError, type KubeErrorDetails } from '../../../../src/nmi/kube/api/kube-error.ts';
import {
  closeDelayMs,
  noFailures,
  retryAfterFailure,
  type Attempt,
  type Failures,
  type ReflectorErrorCode,
} from '../../../../src/nmi/kube/watch/retry-policy.ts';

const timing = {
  backoff: { baseMs: 200, capMs: 10_000 },
  outage: { baseMs: 100, capMs: 500 },
  relistJitterMs: 600,
  relistJitterPerObjectMs: 3,
};

function retry(
  code: ReflectorErrorCode,
  details: KubeErrorDetails = {},
  before: Failures = noFailures,
  attempt: Partial<Attempt> = {},
) {
  const error = code === 'INTERNAL' ? new Error('bug') : new KubeError(code, 'failed', details);
  const usual = { triedMs: 0, awayForMs: 0, objects: 0, chance: 0.5 };
  return retryAfterFailure(error, before, timing, { ...usual, ...attempt });
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
      const expected = { code, failures, isRelist, delayMs, idleMs: 0, isWakeable };
      assert.deepEqual(retry(code, details), expected);
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
    assert.equal(retry('NETWORK', {}, noFailures, { triedMs: 50 }).delayMs, 25);
    assert.equal(retry('NETWORK', {}, noFailures, { triedMs: 700 }).delayMs, 0);
    const told = retry('SERVER', { retryAfterMs: 2000 }, noFailures, { triedMs: 700 });
    assert.equal(told.delayMs, 2250);
  });

  it('subtracts earlier waits from the spread of relists', () => {
    const waited: Failures = { kind: 'outage', count: 3, waitedMs: 250 };
    assert.equal(retry('GONE', {}, waited).delayMs, 50);
    assert.equal(retry('GONE', {}, { kind: 'expiry', count: 2, waitedMs: 250 }).delayMs, 600);
  });

  it('spreads relists further the more objects there are, up to a minute', () => {
    const idle = (objects: number, before = noFailures): readonly number[] => {
      const { delayMs, idleMs } = retry('GONE', {}, before, { objects });
      return [delayMs, idleMs];
    };
    assert.deepEqual(idle(1_000), [300, 1_500]);
    assert.deepEqual(idle(20_000), [300, 30_000]);
    assert.deepEqual(idle(1_000_000), [300, 30_000]);
    assert.deepEqual(idle(1_000, { kind: 'outage', count: 3, waitedMs: 800 }), [0, 1_000]);
    assert.deepEqual(idle(1_000, { kind: 'outage', count: 3, waitedMs: 9_000 }), [0, 0]);
    assert.deepEqual(idle(1_000, { kind: 'expiry', count: 1, waitedMs: 0 }), [300, 0]);
  });

  it('waits longer the longer an outage lasts, up to 30 s, unless a request waits', () => {
    const later: Failures = { kind: 'outage', count: 40, waitedMs: 0 };
    const waits = (awayForMs: number, triedMs = 0): readonly number[] => {
      const { delayMs, idleMs } = retry('NETWORK', {}, later, { awayForMs, triedMs });
      return [delayMs, idleMs];
    };
    assert.deepEqual(waits(10_000), [375, 0]);
    assert.deepEqual(waits(60_000), [375, 1_875]);
    assert.deepEqual(waits(60_000, 700), [0, 1_550]);
    assert.deepEqual(waits(3_600_000), [375, 22_125]);
    const told = retry('SERVER', { retryAfterMs: 2000 }, later, { awayForMs: 3_600_000 });
    assert.deepEqual([told.delayMs, told.idleMs], [2250, 0]);
    // Another failure, long ago.
    const first = retry('NETWORK', {}, noFailures, { awayForMs: 3_600_000 });
    assert.deepEqual([first.delayMs, first.idleMs], [75, 0]);
  });

  it('reopens a watch that was closed too early twice at once, and then within a second', () => {
    const delays = [1, 2, 3, 4, 5, 9].map((closes) => closeDelayMs(timing, closes, 1));
    assert.deepEqual(delays, [0, 0, 200, 400, 800, 1000]);
  });
});
