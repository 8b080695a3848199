/** Tokens of service accounts, verified like by any party that trusts the cluster. */
import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';

/** A key in the form that the issuer publishes. */
export interface SigningKey {
  readonly kid: string;
  readonly kty: string;
  readonly n: string;
  readonly e: string;
}

type Json = Readonly<Record<string, unknown>>;

/** Throws if none of the keys has signed it. */
export function verifyToken(
  token: string,
  keys: readonly SigningKey[],
): { readonly header: Json; readonly claims: Json } {
  const [head = '', body = '', signature = ''] = token.split('.');
  const header = decode(head);
  const published = keys.find(({ kid }) => kid === header['kid']);
  assert.ok(header['alg'] === 'RS256' && published !== undefined, 'no key for the token');
  const { kty, n, e } = published;
  const key = createPublicKey({ key: { kty, n, e }, format: 'jwk' });
  const signed = Buffer.from(`${head}.${body}`);
  assert.ok(
    verify('sha256', signed, key, Buffer.from(signature, 'base64url')),
    'not its signature',
  );
  return { header, claims: decode(body) };
}

function decode(part: string): Json {
  return JSON.parse(Buffer.from(part, 'base64url').toString()) as Json;
}
