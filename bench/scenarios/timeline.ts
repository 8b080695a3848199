/** Results before, during and after an event, from a load at a steady rate. */
import { Histogram } from '../core/histogram.ts';
import type { Curve, CurveLine, CurveSpan, Figure } from '../core/results.ts';
import type { LoadReport, TimelinePiece } from '../load/plan.ts';

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

/** @param event its times are in milliseconds since the epoch. */
export function timelineCurve(report: LoadReport, pieceMs: number, event: CurveSpan): Curve {
  const secondsAt = (wallMs: number) => (wallMs - report.measuredFromWallMs) / 1000;
  return {
    name: 'Answers over time',
    xLabel: 's',
    yLabel: 'a second',
    xScale: 'linear',
    lines: [
      { name: 'right answers', points: steps(report, pieceMs, ({ answers }) => answers) },
      { name: 'failures', points: steps(report, pieceMs, ({ failures }) => failures) },
    ],
    spans: [{ name: event.name, from: secondsAt(event.from), to: secondsAt(event.to) }],
  };
}

/** A second, level for each piece: a slope would begin before what it shows. */
function steps(
  { timeline }: LoadReport,
  pieceMs: number,
  countOf: (piece: TimelinePiece) => number,
): CurveLine['points'] {
  return timeline.flatMap((piece) => {
    const perSec = (countOf(piece) * 1000) / pieceMs;
    return [piece.atMs, piece.atMs + pieceMs].map((atMs) => [atMs / 1000, perSec] as const);
  });
}
