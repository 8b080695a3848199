/**
 * Whether this node's wall clock agrees with an upstream's, by the `Date` of its answer. A token's
 * expiry is a time of the upstream's clock: by a clock that is an hour ahead a new token would seem
 * dead, by one that is behind a dead one alive. Pure.
 */

/** Less is the way of the answer, and the seconds that the header is rounded to. */
const toleranceMs = 60_000;
/** More is no clock that is off by hours or a time zone, but a header that says nothing. */
const longestMs = 24 * 3_600_000;

/** Milliseconds that the wall clock is ahead of the upstream's, below 0 behind; 0 if unknown. */
export function clockAheadMs(date: string | string[] | undefined, nowWallMs: number): number {
  if (typeof date !== 'string') return 0;
  const aheadMs = nowWallMs - Date.parse(date);
  const size = Math.abs(aheadMs);
  return size > toleranceMs && size <= longestMs ? aheadMs : 0;
}
