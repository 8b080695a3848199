/**
 * The fields that token answers of IMDS and of Entra ID have in common, read without trusting them.
 */
import type { Token } from '../../cache/token/token.ts';
import { parseRecord, type JsonRecord } from '../../base/json-value.ts';

/** `problem` completes "the upstream answered ...". */
export type ParsedToken =
  { readonly ok: true; readonly token: Token } | { readonly ok: false; readonly problem: string };

export function badToken(problem: string): ParsedToken {
  return { ok: false, problem };
}

/** Whole seconds of a number or of a string of digits. */
export function seconds(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? Math.floor(value) : undefined;
  if (typeof value !== 'string' || !/^\d{1,12}$/.test(value)) return undefined;
  return Number(value);
}

/** Bearer tokens go into a header of the pod's next call: one line of visible ASCII. */
export function isHeaderSafe(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}

/**
 * The claims of a token, not verified: it comes from the upstream itself. A token that is not a
 * JWT has none.
 */
export function claimsOf(accessToken: string): JsonRecord | undefined {
  const payload = accessToken.split('.')[1];
  if (payload === undefined) return undefined;
  return parseRecord(Buffer.from(payload, 'base64url').toString('utf8'));
}
