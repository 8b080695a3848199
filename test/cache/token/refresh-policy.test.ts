import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refreshDelayMs, retryDelayMs } from '../../../src/cache/token/refresh-policy.ts';
import { hourMs, minuteMs } from '../../support/token-fixture.ts';

describe('the times of the next refresh', () => {
  it('are half of the life, plus or minus a tenth, or earlier if the source requests it', () => {
    assert.equal(refreshDelayMs(24 * hourMs, Infinity, 0, 0), 10.8 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, Infinity, 0, 0.5), 12 * hourMs);
    assert.ok(Math.abs(refreshDelayMs(24 * hourMs, Infinity, 0, 1) - 13.2 * hourMs) < 1);
    assert.equal(refreshDelayMs(24 * hourMs, 2 * hourMs, 0, 0.5), 2 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, 20 * hourMs, 0, 0.5), 12 * hourMs);
    assert.equal(refreshDelayMs(24 * hourMs, -hourMs, 0, 0.5), 10_000);
    assert.equal(refreshDelayMs(1_000, Infinity, 0, 0.5), 10_000);
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
