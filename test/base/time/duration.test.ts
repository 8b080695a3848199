import assert from 'node:assert/strict';
import { it } from 'node:test';
import { durationText, parseDuration, timeText } from '../../../src/base/time/duration.ts';

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

it('writes durations in two units at most', () => {
  const texts: readonly (readonly [number, string])[] = [
    [999, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min 0 s'],
    [3_599_000, '59 min 59 s'],
    [3_600_000, '1 h 0 min'],
    [86_399_000, '23 h 59 min'],
    [86_400_000, '1 d 0 h'],
    [180_000_000, '2 d 2 h'],
  ];
  for (const [ms, text] of texts) assert.equal(durationText(ms), text);
});

it('renders a time in UTC and whole seconds', () => {
  assert.equal(timeText(Date.UTC(2026, 11, 2, 9) + 999), '2026-12-02T09:00:00Z');
});
