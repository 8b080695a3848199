import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Histogram } from '../../bench/core/histogram.ts';
import { timelineCurve } from '../../bench/scenarios/timeline.ts';

it('a curve over time is level for each piece, and has the event where it was', () => {
  const report = {
    measuredFromWallMs: 1_700_000_000_000,
    perSec: 0,
    answers: 60,
    failures: 20,
    foreign: 0,
    firstFailure: undefined,
    cpuMsPer1000: undefined,
    cpuWindowMs: 0,
    loadCpuShare: 0,
    latency: new Histogram().compact(),
    timeline: [
      { atMs: 0, answers: 50, failures: 0, p50Us: 1, maxUs: 1 },
      { atMs: 100, answers: 10, failures: 20, p50Us: 1, maxUs: 1 },
    ],
  };
  const event = { name: 'away', from: 1_700_000_000_050, to: 1_700_000_000_150 };
  const { lines, spans } = timelineCurve(report, 100, event);
  assert.deepEqual(spans, [{ name: 'away', from: 0.05, to: 0.15 }]);
  assert.deepEqual(
    lines.map(({ points }) => points),
    [
      [[0, 500], [0.1, 500], [0.1, 100], [0.2, 100]], // prettier-ignore
      [[0, 0], [0.1, 0], [0.1, 200], [0.2, 200]], // prettier-ignore
    ],
  );
});
