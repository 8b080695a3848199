/** Names of upstream identities and of what is asked of them, for maps. Nothing in them is secret. */
import {
  sourceNameOf,
  type EntraCredential,
  type EntraIdentity,
  type UpstreamIdentity,
} from '../sources/source.ts';

/**
 * Ids compare without regard to letter case. Of an identity of Entra ID the credential is part of
 * the name: a token got with one Secret is not for whoever names another, or a wrong one.
 */
export function identityKey(identity: UpstreamIdentity): string {
  if (identity.kind === 'unnamed') return '';
  if (identity.kind === 'entra') return entraKey(identity);
  return `${identity.kind}=${lowerAscii(identity.value)}`;
}

/** Letters of other alphabets stay: to Unicode the Kelvin sign and `k` are one letter. */
function lowerAscii(text: string): string {
  return /[A-Z]/.test(text) ? text.replaceAll(/[A-Z]+/g, (part) => part.toLowerCase()) : text;
}

/** The resource is exact, since it is echoed, and comes last: keys of one identity begin alike. */
export function tokenKey(identity: UpstreamIdentity, resource: string): string {
  return `${sourceNameOf(identity)}\n${identityKey(identity)}\n${resource}`;
}

function entraKey({ authority, tenantId, clientId, credential }: EntraIdentity): string {
  return `${authority}/${tenantId}/${clientId} ${credentialKey(credential)}`;
}

/** What proves an identity; several may be proven by the same. */
export function credentialKey(credential: EntraCredential): string {
  return `${credential.kind} ${proofName(credential)}`;
}

/** Kubernetes names contain neither blanks nor slashes. */
function proofName(credential: EntraCredential): string {
  switch (credential.kind) {
    case 'secret':
    case 'certificate':
      return `${credential.secret.namespace}/${credential.secret.name}`;
    case 'federated_pod':
      return `${credential.serviceAccount.namespace}/${credential.serviceAccount.name} ${credential.audience}`;
    case 'federated_node':
      return credential.audience;
  }
}
