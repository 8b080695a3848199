/** The kinds of credentials that prove an identity to Entra ID. A new one is its file and a line. */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { certificateKind } from './certificate.ts';
import type {
  CredentialKind,
  CredentialSettings,
  ProofContext,
  ProofProvider,
} from './descriptor.ts';
import { federatedNodeKind, federatedPodKind, podCredential } from './federated.ts';
import { secretKind } from './secret.ts';

const list = [secretKind, certificateKind, federatedPodKind, federatedNodeKind] as const;

type CredentialOf<K> = K extends CredentialKind<infer C> ? C : never;

/** What proves to Entra ID that the agent may speak for an application; never the proof itself. */
export type EntraCredential = CredentialOf<(typeof list)[number]>;

export const credentialKinds: readonly CredentialKind<EntraCredential>[] = list;

/** The kinds of an identity's `spec.type`; none for one that is not of Entra ID. */
export function kindsOfType(type: number): readonly CredentialKind<EntraCredential>[] {
  return credentialKinds.filter((each) => each.type === type);
}

/** @param kinds of one type. A text is what is wrong, as it completes "AzureIdentity x ...". */
export function parseCredential(
  kinds: readonly CredentialKind<EntraCredential>[],
  settings: CredentialSettings,
): EntraCredential | string {
  for (const kind of kinds) {
    const parsed = kind.parse(settings);
    if (parsed !== undefined) return parsed;
  }
  return 'names no credential';
}

/** Of a pod's application that no `AzureIdentity` stands for. */
export const credentialOfPod: (serviceAccount: ObjectName, audience: string) => EntraCredential =
  podCredential;

/** What proves an identity; several may be proven by the same. */
export function credentialKey(credential: EntraCredential): string {
  return `${credential.kind} ${kindOf(credential).key(credential)}`;
}

/** What it is made of, where that is an object with a name. */
export function objectOf(credential: EntraCredential): ObjectName | undefined {
  return kindOf(credential).objectOf(credential);
}

export function secretOf(credential: EntraCredential): ObjectName | undefined {
  return kindOf(credential).objectKind === 'Secret' ? objectOf(credential) : undefined;
}

/** One provider for all kinds. */
export function openProofs(context: ProofContext<EntraCredential>): ProofProvider<EntraCredential> {
  const providers = new Map(credentialKinds.map((each) => [each, each.open(context)]));
  const providerOf = (credential: EntraCredential): ProofProvider<EntraCredential> => {
    const provider = providers.get(kindOf(credential));
    if (provider === undefined) throw unlisted(credential);
    return provider;
  };
  return {
    get: (credential, signal) => providerOf(credential).get(credential, signal),
    forget: (credential) => providerOf(credential).forget(credential),
    dropUnneeded() {
      for (const provider of providers.values()) provider.dropUnneeded();
    },
    [Symbol.dispose]() {
      for (const provider of providers.values()) provider[Symbol.dispose]();
    },
  };
}

function kindOf(credential: EntraCredential): CredentialKind<EntraCredential> {
  const kind = credentialKinds.find((each) => each.kind === credential.kind);
  if (kind === undefined) throw unlisted(credential);
  return kind;
}

function unlisted({ kind }: EntraCredential): TypeError {
  return new TypeError(`no credential is of the kind ${kind}`);
}
