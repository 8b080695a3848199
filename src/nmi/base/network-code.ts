/** A short constant word for a network failure. Messages may hold addresses, codes do not. */
export function networkCode(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.name === 'TimeoutError' ? 'TIMEOUT' : error.name;
}
