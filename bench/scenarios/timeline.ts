/** Results before, during and after an event, from a load at a steady rate. */
import { Histogram } from '../core/histogram.ts';
import type { Curve, Figure } from '../core/results.ts';
import type { LoadReport } from '../load/plan.ts';

export function timelineFigures(report: LoadReport, pieceMs: number): readonly Figure[] {
  const latency = Histogram.from(report.latency);
  const failing = report.timeline.filter(({ failures }) => failures > 0);
  const figure = (name: string, unit: string, value: number) => ({ name, unit, values: [value] });
  return [
    figure('right answers', '', report.answers),
    figure('failures', '', report.failures),
    figure(`pieces of ${pieceMs} ms with a failure`, '', failing.length),
    figure('p50', 'µs', latency.percentileUs(0.5)),
    figure('p99', 'µs', latency.percentileUs(0.99)),
    figure('slowest', 'µs', latency.maxUs),
  ];
}

export function timelineCurve(report: LoadReport, pieceMs: number): Curve {
  const perSec = 1000 / pieceMs;
  return {
    name: 'answers over time',
    xLabel: 's',
    yLabel: 'a second',
    xScale: 'linear',
    lines: [
      {
        name: 'right answers',
        points: report.timeline.map(({ atMs, answers }) => [atMs / 1000, answers * perSec]),
      },
      {
        name: 'failures',
        points: report.timeline.map(({ atMs, failures }) => [atMs / 1000, failures * perSec]),
      },
    ],
  };
}
