/**
 * The success body of the token endpoint, as IMDS sends it. Numbers in place of strings and absent
 * fields are tolerated; the fields that a caller depends on are checked strictly.
 */
import type { Token } from '../../../cache/token/token.ts';
import { normaliseClientId, normaliseResourceId } from '../../../cache/index/identifiers.ts';
import { parseRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import { badToken, claimsOf, isHeaderSafe, seconds, type ParsedToken } from '../token-fields.ts';

/**
 * @param resource as requested; the token carries this spelling and not the upstream's.
 * @param aheadMs how far the wall clock is ahead of the upstream's.
 */
export function parseImdsToken(
  body: string,
  resource: string,
  nowWallMs: number,
  aheadMs = 0,
): ParsedToken {
  const fields = parseRecord(body);
  if (fields === undefined) return badToken('something that is not a JSON object');
  const accessToken = fields['access_token'];
  if (typeof accessToken !== 'string' || !isHeaderSafe(accessToken)) {
    return badToken('without a usable access_token');
  }
  const nowS = Math.floor(nowWallMs / 1000);
  const theirNowS = Math.floor((nowWallMs - aheadMs) / 1000);
  const expiresIn = seconds(fields['expires_in']);
  const expiresAtWallS =
    seconds(fields['expires_on']) ?? (expiresIn === undefined ? undefined : theirNowS + expiresIn);
  if (expiresAtWallS === undefined) return badToken('without an expiry');
  if (expiresAtWallS <= theirNowS) return badToken('with a token that has expired');
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
      ...(aheadMs === 0 ? {} : { clockAheadMs: aheadMs }),
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

/**
 * The ids of the identity that a token belongs to, each normalized; undefined if the token does not
 * contain it.
 */
export function identityOf(token: Token): {
  readonly client_id: string | undefined;
  readonly object_id: string | undefined;
  readonly resource_id: string | undefined;
} {
  const claims = claimsOf(token.accessToken);
  const named = token.clientId === '' ? undefined : normaliseClientId(token.clientId);
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
