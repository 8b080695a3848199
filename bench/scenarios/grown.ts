/** Results of a measurement over growing counts. */
import type { Curve, CurveLine, Figure } from '../core/results.ts';
import { ratiosOf, slopeErrorOf, slopeOf } from '../core/statistics.ts';

export interface Grown {
  readonly figures: readonly Figure[];
  readonly curves: readonly Curve[];
}

/** Ratio of the cost at the highest count to the cost at the lowest, round by round. */
export function ends(rounds: readonly (readonly number[])[]): readonly number[] {
  return ratiosOf(rounds.at(-1) ?? [], rounds[0] ?? []);
}

/** Memory per object, and its standard error. */
export function perObject(
  what: string,
  points: readonly (readonly [number, number])[],
): readonly Figure[] {
  const figure = (name: string, mb: number) => ({ name, unit: 'KB', values: [mb * 1024] });
  return [figure(what, slopeOf(points)), figure(`${what}: standard error`, slopeErrorOf(points))];
}

export function curve(
  name: string,
  xLabel: string,
  yLabel: string,
  lines: readonly CurveLine[],
): Curve {
  return { name, xLabel, yLabel, xScale: 'log', lines };
}
