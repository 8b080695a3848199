/** Cache keys of upstream identities and their tokens. They contain no secret. */
import { credentialKey } from '../sources/entra/credentials/kinds.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';

/**
 * With the credential: a token got with one Secret must not serve an identity of another. With the
 * time of its revocation, so that tokens from before are not found, and a fetch that began before
 * stores its token where nobody looks. A pod may choose a value with spaces, but none with a tab.
 */
export function identityKey(identity: UpstreamIdentity): string {
  if (identity.kind === 'unnamed') return '';
  const { notBeforeWallMs } = identity;
  const since = notBeforeWallMs === undefined ? '' : `\tsince ${notBeforeWallMs}`;
  if (identity.kind !== 'entra') return `${identity.kind}=${lowerAscii(identity.value)}${since}`;
  const { authority, tenantId, clientId, credential, agentIdentity } = identity;
  const agent = agentIdentity === undefined ? '' : ` for ${agentIdentity}`;
  return `${authority}/${tenantId}/${clientId} ${credentialKey(credential)}${agent}${since}`;
}

/** Only ASCII letters are lowered: in Unicode, the Kelvin sign becomes `k`. */
function lowerAscii(text: string): string {
  return /[A-Z]/.test(text) ? text.replaceAll(/[A-Z]+/g, (part) => part.toLowerCase()) : text;
}

/** The resource is exact, since it is echoed, and last: keys of an identity share a prefix. */
export function tokenKey(identity: UpstreamIdentity, resource: string): string {
  return `${sourceNameOf(identity)}\n${identityKey(identity)}\n${resource}`;
}
