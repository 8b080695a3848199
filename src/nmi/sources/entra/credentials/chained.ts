/**
 * The credential of an application is a token of another identity: of a managed identity of the
 * node, or, for an agent identity, of its blueprint, which authenticates in the same way or by
 * federation. The broker gets that token, caches it, and has it sent as the assertion.
 */
import { isGuid } from '../../../../cache/index/identifiers.ts';
import type { ChainSettings } from '../../../../cache/index/objects.ts';
import { parseNodeIdentity } from '../../node-identity.ts';
import type { NamedNodeIdentity, Revocable } from '../../source.ts';
import type { CredentialKind, CredentialSettings } from './descriptor.ts';

export interface ChainedCredential<F> {
  readonly kind: 'chained';
  /** Its token for `audience` is the assertion. */
  readonly assertedBy: NamedNodeIdentity | Blueprint<F>;
  readonly audience: string;
}

/** In the form of an identity of Entra ID. */
export interface Blueprint<F> extends Revocable {
  readonly kind: 'entra';
  readonly authority: string;
  readonly tenantId: string;
  readonly clientId: string;
  readonly credential: ChainedCredential<F> | F;
  readonly agentIdentity: string;
}

/** @param federated the kinds of credentials that a blueprint may have instead. */
export function describeChainedKind<F extends { readonly kind: string }>(
  federated: readonly CredentialKind<F>[],
): CredentialKind<ChainedCredential<F>> {
  /** The authority and the agent identity are those of the identity that has the credential. */
  const keyOf = ({ assertedBy, audience }: ChainedCredential<F>): string => {
    if (assertedBy.kind !== 'entra') {
      return `${assertedBy.kind}=${assertedBy.value.toLowerCase()} ${audience}`;
    }
    const { tenantId, clientId, credential } = assertedBy;
    const first = isChained(credential)
      ? keyOf(credential)
      : (federated.find(({ kind }) => kind === credential.kind)?.key(credential) ?? '');
    return `${tenantId}/${clientId} ${credential.kind} ${first}`;
  };
  return {
    kind: 'chained',
    type: 4,
    typeTitle: 'chain',
    isOfPod: true,
    objectKind: 'chain',
    parse: (settings) => parse(settings, federated),
    key: keyOf,
    objectOf: () => undefined,
  };
}

function parse<F extends { readonly kind: string }>(
  settings: CredentialSettings,
  federated: readonly CredentialKind<F>[],
): ChainedCredential<F> | string {
  const { entra, legAudience: audience, authority, revocation } = settings;
  const { chain, federation, tenantId } = entra;
  if (chain === undefined) return 'has no spec.application';
  const { applicationId, agentIdentity } = chain;
  if (!isGuid(applicationId)) return 'has a spec.application.clientID that is no GUID';
  const credential =
    federation === '' ? ofNode(chain, settings) : ofFederation(chain, settings, federated);
  if (typeof credential === 'string') return credential;
  if (agentIdentity === '' && isChained(credential)) return credential;
  if (!isGuid(agentIdentity)) return 'has a spec.agentIdentity that is no GUID';
  const assertedBy = {
    kind: 'entra',
    authority,
    tenantId: tenantId.toLowerCase(),
    clientId: applicationId.toLowerCase(),
    credential,
    agentIdentity: agentIdentity.toLowerCase(),
    ...revocation,
  } as const;
  return { kind: 'chained', assertedBy, audience };
}

function ofNode(
  chain: ChainSettings,
  { legAudience: audience, revocation }: CredentialSettings,
): ChainedCredential<never> | string {
  const assertedBy = parseNodeIdentity(chain, revocation);
  return typeof assertedBy === 'string' ? assertedBy : { kind: 'chained', assertedBy, audience };
}

function ofFederation<F extends { readonly kind: string }>(
  { clientId, resourceId, agentIdentity }: ChainSettings,
  settings: CredentialSettings,
  federated: readonly CredentialKind<F>[],
): F | string {
  if (clientId + resourceId !== '') {
    return 'has spec.federation and a managed identity, whose token would come by federation; Entra ID refuses such a token as the credential of an application (AADSTS700231), so remove spec.federation and assign the managed identity to the nodes';
  }
  if (agentIdentity === '') {
    return 'has spec.federation without spec.agentIdentity; an application that trusts a service account is no chain, it has type 3';
  }
  if (settings.entra.federation === 'binding') {
    return 'has the spec.federation "binding", which is for a managed identity, and a blueprint is none';
  }
  const parsed = federated.map((kind) => kind.parse(settings));
  const credential = parsed.find((each) => typeof each === 'object');
  return credential ?? 'has a spec.federation that is neither "pod" nor "node"';
}

function isChained<F extends { readonly kind: string }>(
  credential: ChainedCredential<F> | F,
): credential is ChainedCredential<F> {
  return 'assertedBy' in credential;
}
