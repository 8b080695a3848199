/** Whether the node's clock agrees with an upstream's, by which tokens expire. Pure. */

/** Smaller differences come from the latency of the answer, and the header has whole seconds. */
const toleranceMs = 60_000;
/** Larger differences are not caused by a clock or a time zone, but by an invalid header. */
const longestMs = 24 * 3_600_000;

export function clockAheadMs(date: string | string[] | undefined, nowWallMs: number): number {
  const aheadMs = nowWallMs - Date.parse(String(date));
  const size = Math.abs(aheadMs);
  return size > toleranceMs && size <= longestMs ? aheadMs : 0;
}
