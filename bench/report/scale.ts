/** Maps values to positions in a picture, and places the marks of an axis. Pure. */

export interface Scale {
  readonly place: (value: number) => number;
  readonly ticks: readonly number[];
}

/** From zero to a round number above all values, or exactly to the largest of them. */
export function linearScale(maxValue: number, from: number, to: number, isExact = false): Scale {
  const step = roundStep(maxValue / 4);
  const round = Math.max(step, Math.ceil(maxValue / step) * step);
  const end = isExact && maxValue > 0 ? maxValue : round;
  const ticks = Array.from(
    { length: Math.floor(end / step + 1e-9) + 1 },
    (_, index) => index * step,
  );
  return { place: (value) => from + (value / end) * (to - from), ticks };
}

/** Spans whole powers of ten. Values must be above zero. */
export function logScale(minValue: number, maxValue: number, from: number, to: number): Scale {
  const first = Math.floor(Math.log10(minValue));
  const last = Math.max(first + 1, Math.ceil(Math.log10(maxValue) - 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
  const share = (value: number): number => (Math.log10(value) - first) / (last - first);
  return { place: (value) => from + share(value) * (to - from), ticks };
}

/** 1, 2 or 5 times a power of ten, not below the value. */
function roundStep(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((each) => each * power >= value * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** Short form: 1200 as 1,200, 20000 as 20k. */
export function label(value: number): string {
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return trim(value);
}

function trim(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString('en-US');
}
