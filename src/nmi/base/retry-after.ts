/**
 * Seconds that a `Retry-After` header asks to wait: a number of them or a date, `maxS` at most.
 * `undefined` when the header is absent or unreadable.
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
