/** Federated credentials: which service account tokens Entra ID accepts for an identity. Pure. */
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
  // Names of credentials consist of letters, digits, hyphens and underscores, 120 at most.
  const name = `${subject.namespace}-${subject.serviceAccount}`.replaceAll('.', '-').slice(0, 120);
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
