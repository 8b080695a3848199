/** Federated credentials: which service account tokens Entra ID accepts for an identity. Pure. */
import { createHash } from 'node:crypto';
import type { AzLine } from './az.ts';

/** Azure's limit for one identity or application. */
export const maxCredentials = 20;

export interface Subject {
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface Federation {
  /** Empty for an application. */
  readonly resourceId: string;
  readonly clientId: string;
  readonly issuer: string;
  readonly audience: string;
}

export function subjectOf({ namespace, serviceAccount }: Subject): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}

export function federateLine(federation: Federation, subject: Subject): AzLine {
  const { resourceId, clientId, issuer, audience } = federation;
  const name = credentialName(subject);
  const parsed = parseResourceId(resourceId);
  if (parsed === undefined) {
    const parameters = { name, issuer, subject: subjectOf(subject), audiences: [audience] };
    return [
      ...['ad', 'app', 'federated-credential', 'create', '--id', clientId],
      ...['--parameters', JSON.stringify(parameters)],
    ];
  }
  return [
    ...['identity', 'federated-credential', 'create', '--name', name],
    ...['--subscription', parsed.subscription, '--resource-group', parsed.resourceGroup],
    ...['--identity-name', parsed.name, '--issuer', issuer],
    ...['--subject', subjectOf(subject), '--audiences', audience],
  ];
}

/** Azure's limit for the name of a credential. */
const maxNameLength = 120;

/**
 * Each subject has a name of its own: Azure would replace the credential of another subject with
 * the same name. Names consist of letters, digits, hyphens and underscores. No name of Kubernetes
 * contains an underscore: one ends a namespace with a hyphen, two are a dot, and three precede the
 * hash in a name that would be too long.
 */
function credentialName(subject: Subject): string {
  const { namespace, serviceAccount } = subject;
  const separator = namespace.includes('-') ? '_' : '-';
  const name = `${namespace}${separator}${serviceAccount.replaceAll('.', '__')}`;
  if (name.length <= maxNameLength) return name;
  const hash = createHash('sha256').update(subjectOf(subject)).digest('hex').slice(0, 32);
  const end = `___${hash}`;
  return `${name.slice(0, maxNameLength - end.length)}${end}`;
}

/** Parses the resource ID of a user-assigned identity. */
function parseResourceId(resourceId: string) {
  const [, subscription, resourceGroup, name] =
    /^\/subscriptions\/([^/]+)\/resourcegroups\/([^/]+)\/providers\/Microsoft\.ManagedIdentity\/userAssignedIdentities\/([^/]+)\/?$/i.exec(
      resourceId.trim(),
    ) ?? [];
  if (subscription === undefined || resourceGroup === undefined || name === undefined)
    return undefined;
  return { subscription, resourceGroup, name };
}
