/**
 * Whether this node's wall clock agrees with an upstream's, by the `Date` header of its answer. A
 * token's expiry is a time of the upstream's clock: if the node's clock is an hour ahead, a new
 * token seems expired; if it is behind, an expired token seems valid. Pure.
 */

/**
 * Smaller differences come from the latency of the answer, and from the header's resolution of 1 s.
 */
const toleranceMs = 60_000;
/** Larger differences are not caused by a clock or a time zone, but by an invalid header. */
const longestMs = 24 * 3_600_000;

/**
 * Milliseconds that the wall clock is ahead of the upstream's; negative if behind, 0 if unknown.
 */
export function clockAheadMs(date: string | string[] | undefined, nowWallMs: number): number {
  if (typeof date !== 'string') return 0;
  const aheadMs = nowWallMs - Date.parse(date);
  const size = Math.abs(aheadMs);
  return size > toleranceMs && size <= longestMs ? aheadMs : 0;
}
