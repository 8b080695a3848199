import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseDuration } from '../../../src/base/time/duration.ts';

it('reads durations as Go writes them', () => {
  assert.equal(parseDuration('100s'), 100_000);
  assert.equal(parseDuration('1m30s'), 90_000);
  assert.equal(parseDuration('1.5h'), 5_400_000);
  assert.equal(parseDuration('250ms'), 250);
  assert.equal(parseDuration('1.25s'), 1_250);
  assert.equal(parseDuration('2147483647ms'), 2_147_483_647, 'the longest that a timer can take');
  for (const bad of ['', '5', 's', '1d', '-1s', '1s x', '1000h', '2147483648ms', '.5s', '1.s']) {
    assert.equal(parseDuration(bad), undefined);
  }
});
