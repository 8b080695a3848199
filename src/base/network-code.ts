/** A short constant word for a network failure. Unlike messages, codes contain no addresses. */
export function networkCode(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.name === 'TimeoutError' ? 'TIMEOUT' : error.name;
}
