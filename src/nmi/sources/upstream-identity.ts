import { assertionOf, kindOf } from './entra/credentials/kinds.ts';
import { hostOf, type EntraIdentity } from './entra/entra-identity.ts';
import type { NodeIdentity } from './source.ts';

/** The identity that a token is requested for, in the upstream's own terms. */
export type UpstreamIdentity = NodeIdentity | EntraIdentity;

/** A short constant word for metrics and logs: `imds`, or the kind of the credential. */
export function sourceNameOf(identity: UpstreamIdentity): string {
  return identity.kind === 'entra' ? identity.credential.kind : 'imds';
}

/** What has to answer for its token: hosts with ports, in a chain of each of its identities. */
export function placesOf(identity: UpstreamIdentity): readonly string[] {
  return [...new Set(legsOf(identity).map(placeOf))];
}

function placeOf(identity: UpstreamIdentity): string {
  if (identity.kind !== 'entra') return 'the metadata address of the node';
  const { authority, credential } = identity;
  return kindOf(credential).isExchangedByCluster ? 'the API server' : hostOf(authority);
}

/**
 * The identities whose tokens are needed for a token of it: itself, and in a chain before it those
 * whose tokens are assertions. The first is the one that proves itself by something else.
 */
export function legsOf(
  identity: UpstreamIdentity,
): readonly [UpstreamIdentity, ...UpstreamIdentity[]] {
  const assertion = identity.kind === 'entra' ? assertionOf(identity.credential) : undefined;
  if (assertion === undefined) return [identity];
  return [...legsOf(assertion.assertedBy), identity];
}

/** What comes before it in a chain. */
export function titlesBefore(identity: UpstreamIdentity): readonly string[] {
  return legsOf(identity).slice(0, -1).map(titleOfLeg);
}

export function titleOfLeg(identity: UpstreamIdentity): string {
  switch (identity.kind) {
    case 'entra': {
      const { clientId, tenantId, agentIdentity, credential } = identity;
      const isOfAgent = assertionOf(credential)?.assertedBy.kind === 'entra';
      const what = isOfAgent ? 'agent identity' : agentIdentity ? 'blueprint' : 'application';
      return `${what} ${clientId} in tenant ${tenantId}`;
    }
    case 'unnamed':
      return "the node's own identity";
    default:
      return `managed identity ${identity.value.replace(/^.*\//, '')}`;
  }
}
