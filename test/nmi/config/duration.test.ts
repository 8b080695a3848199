import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseDuration } from '../../../src/nmi/config/duration.ts';

it('reads durations as Go writes them', () => {
  assert.equal(parseDuration('100s'), 100_000);
  assert.equal(parseDuration('1m30s'), 90_000);
  assert.equal(parseDuration('1.5h'), 5_400_000);
  assert.equal(parseDuration('250ms'), 250);
  for (const bad of ['', '5', 's', '1d', '-1s', '1s x', '1000h']) {
    assert.equal(parseDuration(bad), undefined);
  }
});
