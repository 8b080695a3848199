/**
 * The words of refusals that concern a pod's identity: IMDS's own phrase first, where clients look
 * for it, then pod, label, objects and the one thing that mends it. Facts in, answer out.
 */
import type { ObjectName } from '../../cache/index/object-name.ts';
import { bindingLabel } from '../../cache/index/grant-index.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import { refuse, type Answer, type RefusalExtra } from '../base/answers.ts';
import type { Authorised } from './authorization.ts';
import type { GrantRefusal, NamedSelector } from './grant.ts';
import { printable } from '../base/printable.ts';
import type { AzureNode } from '../sources/azure-node.ts';
import type { SourceFailure } from '../sources/source.ts';
import type { UpstreamChoice } from './resolve-upstream.ts';

/** Entra ID itself takes minutes until a new federated credential is known everywhere. */
const federationGraceMs = 5 * 60_000;

export function explainRefusal(grant: GrantRefusal, pod: Pod): Answer {
  const who = `pod ${pod.namespace}/${pod.name}`;
  switch (grant.reason) {
    case 'no_binding_label':
      return refuse(
        'no_binding_label',
        `Identity not found: ${who} has no label "${bindingLabel}". Set it to the selector of an ` +
          'AzureIdentityBinding in the same namespace.',
      );
    case 'binding_missing':
      return refuse(
        grant.transient ? 'binding_pending' : 'binding_missing',
        `Identity not found: ${who} has the label ${bindingLabel}=${grant.label}, and ` +
          whyUnbound(grant.foreign, pod),
      );
    case 'identity_missing':
      return refuse(
        grant.transient ? 'identity_pending' : 'identity_missing',
        `Identity not found: ${who} is bound by ${list(grant.bindingNames)}, but namespace ` +
          `${pod.namespace} has no AzureIdentity ${list(grant.missingIdentityNames)}. Create it.`,
      );
    case 'selector_not_bound': {
      const missing =
        grant.missingIdentityNames.length === 0
          ? ''
          : ` AzureIdentity ${list(grant.missingIdentityNames)} is bound too but does not exist.`;
      return refuse(
        'selector_not_bound',
        `Identity not found: no identity of ${who} has the ${grant.selector.kind} ` +
          `"${printable(grant.selector.value)}"; bound by label ${bindingLabel}=${grant.label}: ` +
          `${list(grant.identityNames)}.${missing}`,
      );
    }
    case 'identity_ambiguous':
      return refuse(
        'identity_ambiguous',
        'Multiple user assigned identities exist, please specify the clientId / resourceId of the ' +
          `identity in the token request; ${who} is bound to ${list(grant.identityNames)} with ` +
          `client ids ${list(grant.clientIds)}.`,
      );
    case 'identity_invalid':
      return refuse(
        'identity_invalid',
        `Identity not found: AzureIdentity ${pod.namespace}/${grant.identityName} names neither ` +
          'spec.clientID nor spec.resourceID. Set one of them.',
      );
  }
}

function whyUnbound(
  foreign: Extract<GrantRefusal, { reason: 'binding_missing' }>['foreign'],
  { namespace, serviceAccount }: Pod,
): string {
  const [first] = foreign;
  if (first === undefined) {
    return `no AzureIdentityBinding in namespace ${namespace} has that selector. Create one.`;
  }
  return (
    `AzureIdentityBinding ${list(foreign.map(({ name }) => name))} with that selector is not for its ` +
    `service account "${printable(serviceAccount)}". Run the pod under ` +
    `"${printable(first.serviceAccount)}", or change spec.serviceAccount.`
  );
}

/** An identity whose tokens are for something else. */
export function explainResource(identity: Identity, resource: string, pod: Pod): Answer {
  return refuse(
    'resource_not_allowed',
    `Identity not found: ${whose(identity, pod)} is not for the resource ` +
      `"${printable(resource)}". Add it to spec.allowedResources.`,
  );
}

/** An identity that says something upstream cannot be asked with. */
export function explainUnusable(
  { reason, problem }: Extract<UpstreamChoice, { kind: 'unusable' }>,
  identity: Identity | undefined,
  pod: Pod,
): Answer {
  const text = `${whose(identity, pod)} ${printable(problem)}. Correct it.`;
  return refuse(reason, `Identity not found: ${text}`);
}

/** A pod set up for Workload Identity on a node whose agent has not the right it takes. */
export function explainUnreadable(pod: Pod, account: ObjectName): Answer {
  return refuse(
    'credential_invalid',
    `Identity not found: the agent may not read service account ${account.namespace}/` +
      `${account.name} of pod ${pod.namespace}/${pod.name}. Give it the right "get" on serviceaccounts.`,
  );
}

/** A pod set up for Workload Identity whose service account names no application. */
export function explainUnannotated(pod: Pod, account: ObjectName): Answer {
  return refuse(
    'no_binding_label',
    `Identity not found: pod ${pod.namespace}/${pod.name} has no label "${bindingLabel}", and its ` +
      `service account ${account.namespace}/${account.name} has no annotation ` +
      '"azure.workload.identity/client-id". Set one of them.',
  );
}

/** A pod on the host network where such pods get nothing. */
export function explainHostNetwork(pod: Pod): Answer {
  return refuse(
    'host_network_refused',
    `Access denied: pod ${pod.namespace}/${pod.name} is on the host network, and such pods get no ` +
      'tokens on this node (--host-network=refuse).',
  );
}

/** A pod with the node's own answer where the node has none. */
export function explainNoImds(pod: Pod): Answer {
  return refuse(
    'identity_unsupported',
    `Identity not found: pod ${pod.namespace}/${pod.name} is to have the ` +
      "node's own identities, and this node has no metadata service of its own.",
  );
}

/** The application of a service account is the only identity its pods may name. */
export function explainForeignSelector(pod: Pod, selector: NamedSelector): Answer {
  return refuse(
    'selector_not_bound',
    `Identity not found: the service account of pod ${pod.namespace}/${pod.name} does not name the ` +
      `${selector.kind} "${printable(selector.value)}".`,
  );
}

export function explainUnknownObjectId(pod: Pod, objectId: string): Answer {
  return refuse(
    'selector_not_bound',
    `Identity not found: no identity of pod ${pod.namespace}/${pod.name} has the object_id ` +
      `"${printable(objectId)}".`,
  );
}

/**
 * What the upstream's failure means for the pod that asked.
 * @param grantAgeMs age of the newest object that the pod's right rests on.
 * @param graceMs during which something missing may still arrive.
 */
export function explainFailure(
  failure: SourceFailure,
  authorised: Authorised,
  grantAgeMs: number,
  graceMs: number,
): Answer {
  const { identity, pod } = authorised;
  const extra: RefusalExtra = {
    ...(failure.error === undefined ? {} : { error: failure.error }),
    ...(failure.retryAfterS === undefined ? {} : { retryAfterS: failure.retryAfterS }),
    ...(failure.details === undefined ? {} : { details: failure.details }),
  };
  const owner =
    identity === undefined && authorised.upstream.kind !== 'entra'
      ? `the node's identities for pod ${pod.namespace}/${pod.name}`
      : whose(identity, pod);
  const told = `${failure.description} (${owner})`;
  switch (failure.reason) {
    case 'identity_not_assigned': {
      if (identity === undefined) return refuse('upstream_refused', failure.description);
      const id = identity.resourceId === '' ? '<its resource id>' : identity.resourceId;
      return refuse(
        'identity_not_assigned',
        `Identity not found: AzureIdentity ${identity.namespace}/${identity.name} of pod ` +
          `${pod.namespace}/${pod.name} is not assigned to this node. Assign it: ` +
          `${assignCommand(failure.node)} --identities ${id}`,
      );
    }
    case 'upstream_refused':
      return refuse('upstream_refused', failure.description, extra);
    case 'resource_refused':
    case 'identity_refused':
    case 'credential_refused':
    case 'credential_invalid':
    case 'policy_refused':
      return refuse(failure.reason, told, extra);
    case 'credential_missing': {
      const isYoung = Math.abs(grantAgeMs) < graceMs;
      return refuse(isYoung ? 'credential_pending' : 'credential_missing', told, extra);
    }
    case 'federation_refused': {
      const isYoung = Math.abs(grantAgeMs) < Math.max(graceMs, federationGraceMs);
      return refuse(isYoung ? 'federation_pending' : 'federation_refused', told, extra);
    }
    case 'upstream_throttled':
      return refuse('upstream_throttled', failure.description, extra);
    case 'upstream_down':
      return refuse(
        'upstream_down',
        `No token for the moment: ${failure.description}. Retry.`,
        extra,
      );
  }
}

function assignCommand(node: AzureNode | undefined): string {
  if (node === undefined) {
    return 'az vmss identity assign --resource-group <node resource group> --name <scale set>';
  }
  const { kind, subscriptionId, resourceGroup, name } = node;
  return (
    `az ${kind} identity assign --subscription ${subscriptionId} ` +
    `--resource-group ${resourceGroup} --name ${name}`
  );
}

function whose(identity: Identity | undefined, pod: Pod): string {
  const who = `pod ${pod.namespace}/${pod.name}`;
  return identity === undefined
    ? `service account ${pod.namespace}/${pod.serviceAccount} of ${who}`
    : `AzureIdentity ${identity.namespace}/${identity.name} of ${who}`;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 10).map((name) => printable(name));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : '';
  return shown.length === 0 ? '(none)' : `${shown.join(', ')}${more}`;
}
