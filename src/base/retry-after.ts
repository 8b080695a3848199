/**
 * The seconds of a `Retry-After` header, which is a number or a date; at most `maxS`. `undefined`
 * if the header is absent or unreadable.
 */
export function parseRetryAfter(
  header: string | readonly string[] | undefined,
  nowWallMs: number,
  maxS = Infinity,
): number | undefined {
  const text = (typeof header === 'string' ? header : header?.[0])?.trim() ?? '';
  const seconds = /^\d{1,9}$/.test(text)
    ? Number(text)
    : Math.max(0, Math.ceil((Date.parse(text) - nowWallMs) / 1000));
  return Number.isNaN(seconds) ? undefined : Math.min(seconds, maxS);
}
