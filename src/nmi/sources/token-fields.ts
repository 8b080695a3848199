/** The success bodies of IMDS and Entra ID. What a caller depends on is checked strictly. Pure. */
import type { Token } from '../../cache/token/token.ts';
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import { parseRecord, stringAt, type JsonRecord } from '../../base/json-value.ts';

/** `problem` completes "the upstream answered ...". */
export type ParsedToken =
  { readonly ok: true; readonly token: Token } | { readonly ok: false; readonly problem: string };

/** What the two bodies do not have in common. */
interface OwnFields extends Pick<Token, 'clientId' | 'livesForS' | 'refreshAtWallS'> {
  readonly expiresOn: unknown;
  readonly notBefore: unknown;
}

/** @param resource as requested; the token carries this spelling and not the upstream's. */
export function parseImdsToken(
  body: string,
  resource: string,
  nowWallMs: number,
  aheadMs = 0,
): ParsedToken {
  return parseToken(body, resource, nowWallMs, aheadMs, (fields) => ({
    clientId: stringAt(fields, 'client_id'),
    expiresOn: fields['expires_on'],
    notBefore: fields['not_before'],
  }));
}

/** @param requested client id and resource, which are not in the body. */
export function parseEntraToken(
  body: string,
  { clientId, resource }: { readonly clientId: string; readonly resource: string },
  nowWallMs: number,
  aheadMs = 0,
): ParsedToken {
  return parseToken(body, resource, nowWallMs, aheadMs, (fields, accessToken) => {
    const { exp, nbf } = claimsOf(accessToken) ?? {};
    const livesForS = seconds(fields['expires_in']);
    const refreshInS = seconds(fields['refresh_in']);
    return {
      clientId,
      expiresOn: exp,
      notBefore: nbf,
      ...(livesForS === undefined ? {} : { livesForS }),
      ...(refreshInS === undefined
        ? {}
        : { refreshAtWallS: Math.floor(nowWallMs / 1000) + refreshInS }),
    };
  });
}

function parseToken(
  body: string,
  resource: string,
  nowWallMs: number,
  aheadMs: number,
  ownFieldsOf: (fields: JsonRecord, accessToken: string) => OwnFields,
): ParsedToken {
  const fields = parseRecord(body);
  if (fields === undefined) return badToken('something that is not a JSON object');
  const accessToken = stringAt(fields, 'access_token');
  if (!isHeaderSafe(accessToken)) return badToken('without a usable access_token');
  const { expiresOn, notBefore, ...own } = ownFieldsOf(fields, accessToken);
  const nowS = Math.floor(nowWallMs / 1000);
  const theirNowS = Math.floor((nowWallMs - aheadMs) / 1000);
  const expiresInS = seconds(fields['expires_in']);
  const expiresAtWallS =
    seconds(expiresOn) ?? (expiresInS === undefined ? undefined : theirNowS + expiresInS);
  if (expiresAtWallS === undefined) return badToken('without an expiry');
  if (expiresAtWallS <= theirNowS) return badToken('with a token that has expired');
  const extendedS = seconds(fields['ext_expires_in']);
  const token = {
    ...own,
    accessToken,
    resource,
    expiresAtWallS,
    notBeforeWallS: Math.min(seconds(notBefore) ?? nowS, nowS),
    extExpiresAtWallS: extendedS === undefined ? undefined : nowS + extendedS,
    ...(aheadMs === 0 ? {} : { clockAheadMs: aheadMs }),
  };
  return { ok: true, token };
}

function badToken(problem: string): ParsedToken {
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

/** Not verified: the token comes from the upstream itself. Undefined if it is no JWT. */
export function claimsOf(accessToken: string): JsonRecord | undefined {
  const payload = accessToken.split('.')[1];
  if (payload === undefined) return undefined;
  return parseRecord(Buffer.from(payload, 'base64url').toString('utf8'));
}

/** Lower-cased. */
export function objectIdOf(accessToken: string): string | undefined {
  return claim(claimsOf(accessToken), 'oid', normaliseClientId);
}

/** The ids of the identity that a token belongs to, normalized, as far as it contains them. */
export function identityOf({ accessToken, clientId }: Token) {
  const claims = claimsOf(accessToken);
  const named = clientId === '' ? undefined : normaliseClientId(clientId);
  return {
    client_id: named ?? claim(claims, 'appid', normaliseClientId),
    object_id: claim(claims, 'oid', normaliseClientId),
    resource_id: claim(claims, 'xms_mirid', normaliseResourceId),
  };
}

function claim(
  claims: JsonRecord | undefined,
  name: string,
  normalise: (text: string) => string,
): string | undefined {
  const text = stringAt(claims, name);
  return text === '' ? undefined : normalise(text);
}
