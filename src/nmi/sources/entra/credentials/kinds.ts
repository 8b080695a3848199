/** The kinds of credentials for Entra ID. A new kind needs its own file and a line here. */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { certificateKind } from './certificate.ts';
import type { CredentialKind, CredentialContext, CredentialProvider } from './descriptor.ts';
import { federatedNodeKind, federatedPodKind } from './federated.ts';
import { secretKind } from './secret.ts';

const list = [secretKind, certificateKind, federatedPodKind, federatedNodeKind] as const;

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
  return `${credential.kind} ${ofKind(credentialKinds, credential).key(credential)}`;
}

/** The object that the credential is made from, if that has a name. */
export function objectOf(credential: EntraCredential): ObjectName | undefined {
  return ofKind(credentialKinds, credential).objectOf(credential);
}

/** The agent's own service account is the subject, for every identity of this kind. */
export function isOfAgent(credential: EntraCredential): boolean {
  return ofKind(credentialKinds, credential).isOfAgent === true;
}

export function secretOf(credential: EntraCredential): ObjectName | undefined {
  return ofKind(credentialKinds, credential).objectKind === 'Secret'
    ? objectOf(credential)
    : undefined;
}

export function openCredentials(
  context: CredentialContext<EntraCredential>,
): CredentialProvider<EntraCredential> {
  const opened = credentialKinds.map((each) => ({
    kind: each.kind,
    clientCredentials: each.open(context),
  }));
  return {
    get: (credential, signal) =>
      ofKind(opened, credential).clientCredentials.get(credential, signal),
    forget: (credential, refused) =>
      ofKind(opened, credential).clientCredentials.forget(credential, refused),
    dropUnneeded() {
      for (const { clientCredentials } of opened) clientCredentials.dropUnneeded();
    },
    [Symbol.dispose]() {
      for (const { clientCredentials } of opened) clientCredentials[Symbol.dispose]();
    },
  };
}

function ofKind<T extends { readonly kind: string }>(
  among: readonly T[],
  { kind }: EntraCredential,
): T {
  const found = among.find((each) => each.kind === kind);
  if (found === undefined) throw new TypeError(`no credential is of the kind ${kind}`);
  return found;
}
