import type { EntraIdentity } from './entra/entra-identity.ts';
import type { NodeIdentity } from './source.ts';

/** The identity that a token is requested for, in the upstream's own terms. */
export type UpstreamIdentity = NodeIdentity | EntraIdentity;

/** A short constant word for metrics and logs: `imds`, or the kind of the credential. */
export function sourceNameOf(identity: UpstreamIdentity): string {
  return identity.kind === 'entra' ? identity.credential.kind : 'imds';
}
