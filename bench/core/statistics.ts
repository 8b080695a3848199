/** Statistics over several rounds of one measurement. */

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** The rounds differ by more than {@link noiseBound} of their median. */
  readonly isNoisy: boolean;
}

/** From the lowest to the highest round, as a share of the median. */
export const noiseBound = 0.4;

/** For an even count, the mean of the middle two; NaN for none. Those that are NaN do not count. */
export function median(numbers: readonly number[]): number {
  const sorted = knownOf(numbers).toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** The value that `share` (above 0, up to 1) of the numbers do not exceed; NaN for none. */
export function nearestRank(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.ceil(share * sorted.length) - 1] ?? NaN;
}

export function spreadOf(numbers: readonly number[]): Spread {
  const known = knownOf(numbers);
  const middle = median(known);
  const [min, max] = [Math.min(...known), Math.max(...known)];
  const isNoisy = known.length > 1 && max - min > noiseBound * Math.abs(middle);
  return { median: middle, min, max, isNoisy };
}

/** Without rounds that were not measured. */
function knownOf(numbers: readonly number[]): readonly number[] {
  return numbers.filter((each) => !Number.isNaN(each));
}

/** Round by round, so that a disturbance of the machine affects both; a round that lacks one of them is left out. */
export function ratiosOf(ours: readonly number[], control: readonly number[]): readonly number[] {
  return knownOf(ours.map((each, round) => each / (control[round] ?? NaN)));
}

/** The standard error of that slope, if the points were independent; NaN for fewer than three. */
export function slopeErrorOf(points: readonly (readonly [x: number, y: number])[]): number {
  const count = points.length;
  if (count < 3) return NaN;
  const slope = slopeOf(points);
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / count;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / count;
  const left = points.reduce((sum, [x, y]) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0);
  const along = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return Math.sqrt(left / (count - 2) / along);
}

/** Least squares, in units of y per unit of x; NaN for fewer than two points. */
export function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const count = points.length;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / count;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / count;
  const across = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const along = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return across / along;
}
