/**
 * Texts of refusals that concern a pod's identity: IMDS's own phrase first, where clients search
 * for it, then pod, label, objects and the fix. Pure.
 */
import { fullName } from '../../cache/index/object-name.ts';
import { bindingLabel } from '../../cache/index/grant-index.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import { refuse, type Answer, type RefusalExtra } from '../base/answers.ts';
import type { Authorized, OwnedBy, PodFacts, Refused } from './authorization.ts';
import type { CallerFacts } from '../callers/identified.ts';
import type { GrantRefusal } from './grant.ts';
import type { GrantEntry } from './identity-owners.ts';
import type { NearMiss } from './near-miss.ts';
import { printable } from '../../base/printable.ts';
import type { AzureNode } from '../sources/azure-node.ts';
import type { SourceFailure } from '../sources/source.ts';

/** Entra ID itself takes minutes to propagate a new federated credential. */
const federationGraceMs = 5 * 60_000;

/** The answer to a refusal, wherever it was decided. */
export function renderRefusal(refusal: Refused): Answer {
  if (refusal.pod !== undefined) {
    return refuse(refusal.reason, textOfPod(refusal.facts, refusal.pod));
  }
  const { reason, facts } = refusal;
  const close = endsConnection.has(facts.about);
  return refuse(reason, textOfCaller(facts), close ? { close } : {});
}

/** Refusals that apply to all requests of a connection. */
const endsConnection: ReadonlySet<CallerFacts['about']> = new Set([
  'unattested',
  'unavailable',
  'outlived',
  'misplaced-address',
]);

function textOfCaller(facts: CallerFacts): string {
  switch (facts.about) {
    case 'unattested':
      return textOfUnattested(facts.refusedBy);
    case 'unavailable':
      return `The agent cannot look up which pod opened this connection: ${facts.why}. Retry.`;
    case 'outlived':
      return 'The address of this connection belongs to another pod now. Connect again.';
    case 'agent-starting':
      return facts.why === undefined
        ? 'The agent is starting and has not read the pods of this node yet. Retry.'
        : `The agent has not read the pods of this node: ${facts.why}. Retry.`;
    case 'stale-addresses': {
      const why = facts.why === undefined ? '' : `: ${facts.why}`;
      return (
        `Pod information for this node is stale, so the pod at ${facts.ip} cannot be identified; ` +
        `the agent is reading it from the Kubernetes API${why}. Retry.`
      );
    }
    case 'shared-address':
      return `More than one running pod of this node has the address ${facts.ip}. Retry later.`;
    case 'unknown-address':
      return (
        `No running pod of this node has the address ${facts.ip}` +
        `${facts.why === undefined ? '' : `, but ${facts.why}`}. Retry.`
      );
    case 'other-cgroup':
      return (
        `This connection has the address ${facts.ip}, but a process opened it that is not of the pod ` +
        'with this address: a new pod that the agent has not received yet, or a proxy of another pod. Retry.'
      );
    case 'misplaced-address':
      return (
        `This connection comes from ${facts.ip}, but by another network link than that of the pod ` +
        'with this address. The agent waits for the Kubernetes API to name its pod. Retry.'
      );
    case 'unknown-name':
      return 'No such pod on this node. Retry.';
  }
}

function textOfUnattested(refusedBy: 'shared-link' | 'option' | undefined): string {
  const what = 'Access denied: the kernel has no record of who opened this connection';
  switch (refusedBy) {
    case undefined:
      return `${what}, and its source address is not that of a pod.`;
    case 'shared-link':
      return (
        `${what}, as behind a proxy or NAT inside the pod or from a sandboxed runtime, and pods of ` +
        'this node share a network link, so its address proves nothing. Use --redirect=iptables, or a ' +
        'network with a link for each pod.'
      );
    case 'option':
      return (
        `${what}, as behind NAT inside the pod or from a sandboxed runtime, and this agent refuses ` +
        'such callers (--unrecorded-callers=refuse).'
      );
  }
}

function textOfPod(facts: PodFacts, pod: Pod): string {
  const who = nameOf(pod);
  switch (facts.about) {
    case 'pod-gone':
      return `Pod ${pod.namespace}/${pod.name} is gone. Retry.`;
    case 'account-pending':
      return 'The service account of this pod is being read. Retry.';
    case 'host-network':
      return (
        `Access denied: ${who} is on the host network, and such pods get no tokens on this node ` +
        '(--host-network=refuse).'
      );
    case 'no-imds':
      return (
        `Identity not found: ${who} is to have the node's own identities, and this node has no ` +
        'metadata service of its own.'
      );
    case 'account-unavailable':
      return (
        `The service account of this pod, ${fullName(facts.account)}, cannot be read: the ` +
        'Kubernetes API is not available. Retry.'
      );
    case 'account-unreadable':
      return (
        `Identity not found: the agent may not read service account ${fullName(facts.account)} of ` +
        `${who}. Give it the right "get" on serviceaccounts.`
      );
    case 'account-unannotated':
      return (
        `Identity not found: ${who} has no label "${bindingLabel}", and its service account ` +
        `${fullName(facts.account)} has no annotation "azure.workload.identity/client-id". Set one ` +
        'of them.'
      );
    case 'account-selector':
      return (
        `Identity not found: the service account of ${who} does not name the ` +
        `${facts.selector.kind} "${printable(facts.selector.value)}".`
      );
    case 'object-id':
      return `Identity not found: no identity of ${who} has the object_id "${printable(facts.objectId)}".`;
    case 'resource':
      return (
        `Identity not found: ${whose(facts.identity, pod)} is not for the resource ` +
        `"${printable(facts.resource)}". Add it to spec.allowedResources.`
      );
    case 'unusable':
      return `Identity not found: ${whose(facts.identity, pod)} ${printable(facts.problem)}. Correct it.`;
    case 'not-owned':
      return `Identity not found: ${textOfUnowned(facts.by, facts.entry, pod)}`;
    case 'grant':
      return textOfGrant(facts.grant, facts.near, pod);
  }
}

/** Sentences: what no grant gives to the namespace of the pod, and which grant would. */
export function textOfUnowned(by: OwnedBy, entry: GrantEntry, pod: Pod): string {
  const { namespace } = pod;
  const object = `${by.kind} ${fullName({ namespace, name: by.name })} of ${nameOf(pod)}`;
  return `${object} ${clauseOfLacking(entry, namespace)}`;
}

/** Completes the title of an object of the namespace, with its full stop and the fix. */
export function clauseOfLacking(entry: GrantEntry, namespace: string): string {
  if (entry.field === 'nodeIdentities') {
    return (
      `gives the identities of the node, which no AzureIdentityGrant gives to namespace ` +
      `${namespace}. A cluster administrator can set spec.nodeIdentities of an AzureIdentityGrant.`
    );
  }
  const word = entry.field === 'clientIDs' ? 'client id' : 'resource id';
  return (
    `has the ${word} ${printable(entry.id)}, which no AzureIdentityGrant gives to namespace ` +
    `${namespace}. A cluster administrator can add it to spec.${entry.field} of an AzureIdentityGrant.`
  );
}

function textOfGrant(grant: GrantRefusal, near: NearMiss | undefined, pod: Pod): string {
  const who = nameOf(pod);
  switch (grant.reason) {
    case 'no_binding_label':
      return (
        `Identity not found: ${who} has no label "${bindingLabel}". Set it to the selector of an ` +
        'AzureIdentityBinding in the same namespace.'
      );
    case 'binding_missing':
      return (
        `Identity not found: ${who} has the label ${bindingLabel}=${grant.label}, and ` +
        whyUnbound(grant.foreign, near, pod)
      );
    case 'identity_missing':
      return (
        `Identity not found: ${who} is bound by ${list(grant.bindingNames)}, but namespace ` +
        `${pod.namespace} has no AzureIdentity ${list(grant.missingIdentityNames)}. ` +
        (near === undefined
          ? 'Create it.'
          : `Did you mean AzureIdentity "${printable(near.meant)}"? Correct spec.azureIdentity.`)
      );
    case 'selector_not_bound': {
      const missing =
        grant.missingIdentityNames.length === 0
          ? ''
          : ` AzureIdentity ${list(grant.missingIdentityNames)} is bound too but does not exist.`;
      return (
        `Identity not found: no identity of ${who} has the ${grant.selector.kind} ` +
        `"${printable(grant.selector.value)}"; bound by label ${bindingLabel}=${grant.label}: ` +
        `${list(grant.identityNames)}.${missing}`
      );
    }
    case 'identity_ambiguous':
      return (
        'Multiple user assigned identities exist, please specify the clientId / resourceId of the ' +
        `identity in the token request; ${who} is bound to ${list(grant.identityNames)} with ` +
        `client ids ${list(grant.clientIds)}.`
      );
    case 'identity_invalid':
      return (
        `Identity not found: AzureIdentity ${pod.namespace}/${grant.identityName} names neither ` +
        'spec.clientID nor spec.resourceID. Set one of them.'
      );
  }
}

function whyUnbound(
  foreign: Extract<GrantRefusal, { reason: 'binding_missing' }>['foreign'],
  near: NearMiss | undefined,
  { namespace, serviceAccount }: Pod,
): string {
  const [first] = foreign;
  if (first === undefined) {
    const fix =
      near === undefined
        ? 'Create one.'
        : `Did you mean "${printable(near.meant)}"? Correct the label of the pod template.`;
    return `no AzureIdentityBinding in namespace ${namespace} has that selector. ${fix}`;
  }
  return (
    `AzureIdentityBinding ${list(foreign.map(({ name }) => name))} with that selector is not for its ` +
    `service account "${printable(serviceAccount)}". Run the pod under ` +
    `"${printable(first.serviceAccount)}", or change spec.serviceAccount.`
  );
}

/**
 * The answer to the pod after a failure of the upstream.
 * @param grantAgeMs age of the newest object that the authorization depends on.
 * @param graceMs during which a missing object may still arrive.
 */
export function renderFailure(
  failure: SourceFailure,
  authorized: Authorized,
  grantAgeMs: number,
  graceMs: number,
): Answer {
  const { identity, pod } = authorized;
  const extra: RefusalExtra = {
    ...(failure.error === undefined ? {} : { error: failure.error }),
    ...(failure.retryAfterS === undefined ? {} : { retryAfterS: failure.retryAfterS }),
    ...(failure.details === undefined ? {} : { details: failure.details }),
  };
  const owner =
    identity === undefined && authorized.upstream.kind !== 'entra'
      ? `the node's identities for ${nameOf(pod)}`
      : whose(identity, pod);
  const described = `${failure.description} (${owner})`;
  switch (failure.reason) {
    case 'identity_not_assigned': {
      if (identity === undefined) return refuse('upstream_refused', failure.description);
      const id = identity.resourceId === '' ? '<its resource id>' : identity.resourceId;
      return refuse(
        'identity_not_assigned',
        `Identity not found: ${whose(identity, pod)} is not assigned to this node. Assign it: ` +
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
      return refuse(failure.reason, described, extra);
    case 'credential_missing': {
      const isYoung = Math.abs(grantAgeMs) < graceMs;
      return refuse(isYoung ? 'credential_pending' : 'credential_missing', described, extra);
    }
    case 'federation_refused': {
      const isYoung = Math.abs(grantAgeMs) < Math.max(graceMs, federationGraceMs);
      return refuse(isYoung ? 'federation_pending' : 'federation_refused', described, extra);
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
  return identity === undefined
    ? `service account ${pod.namespace}/${pod.serviceAccount} of ${nameOf(pod)}`
    : `AzureIdentity ${fullName(identity)} of ${nameOf(pod)}`;
}

function nameOf(pod: Pod): string {
  return `pod ${fullName(pod)}`;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 10).map((name) => printable(name));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : '';
  return shown.length === 0 ? '(none)' : `${shown.join(', ')}${more}`;
}
