import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrowingPause } from '../../../src/base/time/growing-pause.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('a growing pause', () => {
  it('doubles while requests continue, and is short again after a break', () => {
    const clock = new HandClock();
    const pause = new GrowingPause(clock, 5_000, 60_000);
    const takenAtMs: number[] = [];
    const startedAtMs = clock.monotonicMs();
    for (let step = 0; step < 4_000; step++) {
      if (pause.take()) takenAtMs.push(clock.monotonicMs() - startedAtMs);
      clock.advance(100);
    }
    assert.deepEqual(takenAtMs.slice(0, 7), [0, 5_000, 15_000, 35_000, 75_000, 135_000, 195_000]);
    clock.advance(120_000);
    assert.equal(pause.take(), true);
    clock.advance(4_999);
    assert.equal(pause.take(), false);
    clock.advance(1);
    assert.equal(pause.take(), true);
  });
});
