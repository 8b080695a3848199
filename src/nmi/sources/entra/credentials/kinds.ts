/** The kinds of credentials for Entra ID. A new kind needs its own file and a line here. */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import type { Unavailable } from '../../../kube/api/call-outcome.ts';
import { certificateKind } from './certificate.ts';
import { describeChainedKind } from './chained.ts';
import { openCredentialCache } from './credential-cache.ts';
import type {
  CredentialKind,
  CredentialContext,
  CredentialProvider,
  SecretContext,
  SecretKind,
} from './descriptor.ts';
import {
  federatedBindingKind,
  federatedNodeKind,
  federatedPodKind,
  type NodeCredential,
  type PodCredential,
} from './federated.ts';
import { secretKind } from './secret.ts';

const federated: readonly CredentialKind<PodCredential | NodeCredential>[] = [
  federatedPodKind,
  federatedNodeKind,
];

const ofSecrets = [secretKind, certificateKind] as const;

const list = [
  ...ofSecrets,
  federatedPodKind,
  federatedBindingKind,
  federatedNodeKind,
  describeChainedKind(federated),
] as const;

type CredentialOf<K> = K extends CredentialKind<infer C> ? C : never;

/** Names a credential; never contains the client credential itself. */
export type EntraCredential = CredentialOf<(typeof list)[number]>;

export const credentialKinds: readonly CredentialKind<EntraCredential>[] = list;

/** The kinds of an identity's `spec.type`; empty for an identity that is not of Entra ID. */
export function kindsOfType(type: number): readonly CredentialKind<EntraCredential>[] {
  return credentialKinds.filter((each) => each.type === type);
}

/** For a pod's application without an `AzureIdentity`. */
export { podCredential as credentialOfPod } from './federated.ts';

/** Key of an identity's credential; several identities may have the same. */
export function credentialKey(credential: EntraCredential): string {
  return `${credential.kind} ${kindOf(credential).key(credential)}`;
}

export function objectOf(credential: EntraCredential): ObjectName | undefined {
  return kindOf(credential).objectOf(credential);
}

export function secretOf(credential: EntraCredential): ObjectName | undefined {
  return isOfSecret(credential) ? objectOf(credential) : undefined;
}

export function kindOf(credential: EntraCredential): CredentialKind<EntraCredential> {
  return ofKind(credentialKinds, credential);
}

export type SecretCredential = CredentialOf<(typeof ofSecrets)[number]>;

export function isOfSecret(credential: EntraCredential): credential is SecretCredential {
  return kindOf(credential).objectKind === 'Secret';
}

/** `problem` is a clause that names the Secret. */
export type SecretJudgment =
  | { readonly kind: 'usable' }
  | { readonly kind: 'missing' | 'unusable'; readonly problem: string }
  | Unavailable;

/** Of one Secret, as the agents load it; the credential is not kept. Never rejects. */
export type SecretCheck = (credential: SecretCredential) => Promise<SecretJudgment>;

export function openSecretCheck(
  context: Omit<SecretContext<SecretCredential>, 'onCertificate'>,
): SecretCheck {
  const kinds: readonly SecretKind<SecretCredential>[] = ofSecrets;
  const loaders = kinds.map((each) => ({
    kind: each.kind,
    of: each.open({ ...context, onCertificate: () => undefined }),
  }));
  return async (credential) => {
    const { result } = await ofKind(loaders, credential).of.load(credential);
    if (result.ok) return { kind: 'usable' };
    const { reason, description: problem, retryAfterS } = result.failure;
    if (reason === 'credential_missing') return { kind: 'missing', problem };
    if (reason === 'credential_invalid') return { kind: 'unusable', problem };
    const retryAfterMs = retryAfterS === undefined ? undefined : retryAfterS * 1_000;
    return { kind: 'unavailable', problem, retryAfterMs };
  };
}

/** For a credential that is a token: of which identity, and for which audience. */
export function assertionOf(credential: EntraCredential) {
  return 'assertedBy' in credential ? credential : undefined;
}

/** Most credentials in memory, with LRU eviction. */
const maxKept = 2_000;

export function openCredentials(
  context: CredentialContext<EntraCredential>,
): CredentialProvider<EntraCredential> {
  const loaders = credentialKinds.flatMap((each) =>
    each.open === undefined ? [] : [{ kind: each.kind, of: each.open(context) }],
  );
  return openCredentialCache({
    keyOf: (credential) => `${credential.kind} ${ofKind(loaders, credential).of.keyOf(credential)}`,
    load: (credential) => ofKind(loaders, credential).of.load(credential),
    isNeeded: (credential) => context.isNeeded(credential),
    clock: context.clock,
    maxKept,
  });
}

function ofKind<T extends { readonly kind: string }>(
  among: readonly T[],
  { kind }: EntraCredential,
): T {
  const found = among.find((each) => each.kind === kind);
  if (found === undefined) throw new TypeError(`no credential is of the kind ${kind}`);
  return found;
}
