/** The slopes of a soak are calculated from its stored curve, for several ends of its warm-up. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ScenarioResult } from '../../bench/core/results.ts';
import { slopeFigures, soakSlopes } from '../../bench/report/soak-slopes.ts';

function soak(memoryAt: (minute: number) => number): ScenarioResult {
  const points = Array.from({ length: 240 }, (_, index): [number, number] => {
    const minute = (index + 1) / 4;
    return [minute, memoryAt(minute)];
  });
  const lines = [{ name: 'private', points }];
  return {
    name: 'soak',
    title: '',
    startedAt: '',
    commit: '',
    loadBefore: 0,
    seconds: 3600,
    series: [],
    figures: [],
    notes: [],
    curves: [{ name: 'Memory over time', xLabel: '', yLabel: '', xScale: 'linear', lines }],
  };
}

describe('the growth of a soak', () => {
  it('is reported from four minutes on, each with its error', () => {
    // Ten megabytes in the first quarter, nothing after it.
    const slopes = soakSlopes(
      soak((minute) => 60 + Math.min(10, (minute * 10) / 15)),
      'private',
    );
    assert.deepEqual(
      slopes.map(({ fromMinute }) => fromMinute),
      [0, 5, 15, 30],
    );
    const [all, , third, last] = slopes;
    assert.ok((all?.mbPerHour ?? 0) > 5 && (all?.error ?? 0) > 0);
    assert.ok(Math.abs(third?.mbPerHour ?? NaN) < 0.01 && Math.abs(last?.mbPerHour ?? NaN) < 1e-9);
  });

  it('is only in the figures of a soak', () => {
    const figures = slopeFigures(soak((minute) => minute / 60));
    assert.equal(figures.length, 8);
    assert.ok(Math.abs((figures[0]?.values[0] ?? NaN) - 1) < 1e-9);
    assert.deepEqual(slopeFigures({ ...soak(() => 1), curves: [] }), []);
  });
});
