/** Names of upstream identities and of what is asked of them, for maps. Nothing in them is secret. */
import type { UpstreamIdentity } from './sources/source.ts';

/** Ids compare without regard to letter case. */
export function identityKey(identity: UpstreamIdentity): string {
  return identity.kind === 'unnamed' ? '' : `${identity.kind}=${identity.value.toLowerCase()}`;
}

/** The resource is exact, since it is echoed. */
export function tokenKey(source: string, identity: UpstreamIdentity, resource: string): string {
  return `${source}\n${identityKey(identity)}\n${resource}`;
}
