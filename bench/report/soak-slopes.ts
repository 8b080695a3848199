/**
 * Growth rate of a soak's memory for several ends of the warm-up: the result of a single cut
 * depends on chance. Pure.
 */
import type { Figure, ScenarioResult } from '../core/results.ts';
import { slopeErrorOf, slopeOf } from '../core/statistics.ts';

/** Ends of the warm-up, as shares of the whole time. */
const cuts = [0, 1 / 12, 1 / 4, 1 / 2];

export interface CutSlope {
  readonly fromMinute: number;
  readonly mbPerHour: number;
  readonly error: number;
}

/** @param line `private` or `resident`. Empty for other scenarios than the soak. */
export function soakSlopes(scenario: ScenarioResult, line: string): readonly CutSlope[] {
  const curve = scenario.curves.find(({ name }) => name === 'Memory over time');
  const points = curve?.lines.find(({ name }) => name === line)?.points ?? [];
  const minutes = points.at(-1)?.[0];
  if (minutes === undefined) return [];
  return cuts.map((share) => {
    const fromMinute = Math.round(minutes * share * 10) / 10;
    const later = points.filter(([minute]) => minute >= fromMinute);
    return { fromMinute, mbPerHour: slopeOf(later) * 60, error: slopeErrorOf(later) * 60 };
  });
}

export const slopeNote =
  'Slopes are lines by least squares through all that was seen from a minute on. What is seen one ' +
  'after the other is not independent, the heap being a sawtooth: the standard errors are too small.';

/** Computed from the stored curve, so that no soak has to be run again for it. */
export function slopeFigures(scenario: ScenarioResult): readonly Figure[] {
  return ['resident', 'private'].flatMap((line) =>
    soakSlopes(scenario, line).flatMap(({ fromMinute, mbPerHour, error }): readonly Figure[] => {
      const name = `${line}, slope from minute ${fromMinute}`;
      return [
        { name, unit: 'MB/h', values: [mbPerHour] },
        { name: `${name}: standard error`, unit: 'MB/h', values: [error] },
      ];
    }),
  );
}
