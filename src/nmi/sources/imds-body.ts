/**
 * The success body of the token endpoint: what IMDS sends, tolerant of numbers for strings and of
 * absent fields, strict about what a caller depends on.
 */
import type { Token } from '../../cache/token.ts';
import { normaliseClientId, normaliseResourceId } from '../../cache/identifiers.ts';
import { parseRecord, stringAt, type JsonRecord } from '../json-value.ts';

export type ParsedToken =
  { readonly ok: true; readonly token: Token } | { readonly ok: false; readonly problem: string };

/** @param resource what was asked; the token carries this spelling and not the upstream's. */
export function parseImdsToken(body: string, resource: string, nowWallMs: number): ParsedToken {
  const fields = parseRecord(body);
  if (fields === undefined) return bad('something that is not a JSON object');
  const accessToken = fields['access_token'];
  if (typeof accessToken !== 'string' || !isHeaderSafe(accessToken)) {
    return bad('without a usable access_token');
  }
  const nowS = Math.floor(nowWallMs / 1000);
  const expiresIn = seconds(fields['expires_in']);
  const expiresAtWallS =
    seconds(fields['expires_on']) ?? (expiresIn === undefined ? undefined : nowS + expiresIn);
  if (expiresAtWallS === undefined) return bad('without an expiry');
  if (expiresAtWallS <= nowS) return bad('with a token that has expired');
  const extExpiresIn = seconds(fields['ext_expires_in']);
  const clientId = fields['client_id'];
  return {
    ok: true,
    token: {
      accessToken,
      clientId: typeof clientId === 'string' ? clientId : '',
      resource,
      expiresAtWallS,
      notBeforeWallS: Math.min(seconds(fields['not_before']) ?? nowS, nowS),
      extExpiresAtWallS: extExpiresIn === undefined ? undefined : nowS + extExpiresIn,
    },
  };
}

/**
 * The `oid` claim (the identity's object id) of a token, lower-cased. The token comes from the
 * upstream itself over the node's own link, so nothing is verified here; a token that is not a JWT
 * has none.
 */
export function objectIdOf(accessToken: string): string | undefined {
  return claim(claimsOf(accessToken), 'oid', normaliseClientId);
}

/** What a token says of whose it is, each normalised; undefined where it does not say. */
export function identityOf(token: Token): {
  readonly client_id: string | undefined;
  readonly object_id: string | undefined;
  readonly resource_id: string | undefined;
} {
  const claims = claimsOf(token.accessToken);
  const told = token.clientId === '' ? undefined : normaliseClientId(token.clientId);
  return {
    client_id: told ?? claim(claims, 'appid', normaliseClientId),
    object_id: claim(claims, 'oid', normaliseClientId),
    resource_id: claim(claims, 'xms_mirid', normaliseResourceId),
  };
}

function claimsOf(accessToken: string): JsonRecord | undefined {
  const payload = accessToken.split('.')[1];
  if (payload === undefined) return undefined;
  return parseRecord(Buffer.from(payload, 'base64url').toString('utf8'));
}

function claim(
  claims: JsonRecord | undefined,
  name: string,
  normalise: (text: string) => string,
): string | undefined {
  const text = stringAt(claims, name);
  return text === '' ? undefined : normalise(text);
}

function bad(problem: string): ParsedToken {
  return { ok: false, problem };
}

function seconds(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? Math.floor(value) : undefined;
  if (typeof value !== 'string' || !/^\d{1,12}$/.test(value)) return undefined;
  return Number(value);
}

/** Bearer tokens go into a header of the pod's next call: one line of visible ASCII. */
function isHeaderSafe(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}
