/** What a measurement over growing counts leaves behind. */
import type { Curve, CurveLine, Figure } from '../core/results.ts';

export interface Grown {
  readonly figures: readonly Figure[];
  readonly curves: readonly Curve[];
}

/** The last over the first. */
export function ends(points: readonly (readonly [number, number])[]): number {
  return (points.at(-1)?.[1] ?? NaN) / (points[0]?.[1] ?? NaN);
}

export function curve(
  name: string,
  xLabel: string,
  yLabel: string,
  lines: readonly CurveLine[],
): Curve {
  return { name, xLabel, yLabel, xScale: 'log', lines };
}
