import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clockAheadMs } from '../../../src/nmi/sources/clock-skew.ts';

const nowMs = Date.UTC(2026, 0, 1, 12);
const hourMs = 3_600_000;
const dateAt = (aheadMs: number) => new Date(nowMs - aheadMs).toUTCString();

describe('the clock of an upstream', () => {
  it('is read from the date of its answer, ahead or behind', () => {
    for (const aheadMs of [hourMs, -hourMs, 90_000, -90_000, 24 * hourMs]) {
      assert.equal(clockAheadMs(dateAt(aheadMs), nowMs), aheadMs);
    }
  });

  it('agrees with ours to within a minute', () => {
    for (const aheadMs of [0, 1_000, 60_000, -60_000]) {
      assert.equal(clockAheadMs(dateAt(aheadMs), nowMs), 0);
    }
  });

  it('is unknown when the date is invalid', () => {
    for (const date of [
      ...[undefined, '', 'soon', 'Thu, 01 Jan 1970 00:00:00 GMT', dateAt(25 * hourMs)],
      ...[[dateAt(hourMs), dateAt(0)]],
    ]) {
      assert.equal(clockAheadMs(date, nowMs), 0, String(date));
    }
  });
});
