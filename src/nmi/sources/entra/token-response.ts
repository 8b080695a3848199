/**
 * The success body of Entra ID's v2 token endpoint, which has fewer fields than that of IMDS. Pure.
 */
import { parseRecord, stringAt } from '../../../base/json-value.ts';
import { badToken, claimsOf, isHeaderSafe, seconds, type ParsedToken } from '../token-fields.ts';

/**
 * @param requested client id and resource, which are not in the body; the token carries this spelling.
 * @param aheadMs how far the wall clock is ahead of Entra ID's.
 */
export function parseEntraToken(
  body: string,
  requested: { readonly clientId: string; readonly resource: string },
  nowWallMs: number,
  aheadMs = 0,
): ParsedToken {
  const fields = parseRecord(body);
  if (fields === undefined) return badToken('something that is not a JSON object');
  const accessToken = stringAt(fields, 'access_token');
  if (!isHeaderSafe(accessToken)) return badToken('without a usable access_token');
  const nowS = Math.floor(nowWallMs / 1000);
  const fromNow = (name: string): number | undefined => {
    const span = seconds(fields[name]);
    return span === undefined ? undefined : nowS + span;
  };
  const claims = claimsOf(accessToken);
  const livesForS = seconds(fields['expires_in']);
  const theirNowS = Math.floor((nowWallMs - aheadMs) / 1000);
  const expiresAtWallS =
    seconds(claims?.['exp']) ?? (livesForS === undefined ? undefined : theirNowS + livesForS);
  if (expiresAtWallS === undefined) return badToken('without an expiry');
  if (expiresAtWallS <= theirNowS) return badToken('with a token that has expired');
  const refreshAtWallS = fromNow('refresh_in');
  return {
    ok: true,
    token: {
      accessToken,
      clientId: requested.clientId,
      resource: requested.resource,
      expiresAtWallS,
      notBeforeWallS: Math.min(seconds(claims?.['nbf']) ?? nowS, nowS),
      extExpiresAtWallS: fromNow('ext_expires_in'),
      ...(livesForS === undefined ? {} : { livesForS }),
      ...(refreshAtWallS === undefined ? {} : { refreshAtWallS }),
      ...(aheadMs === 0 ? {} : { clockAheadMs: aheadMs }),
    },
  };
}
