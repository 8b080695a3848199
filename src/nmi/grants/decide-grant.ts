/** Decides at every request whether, and of which identity, a pod may have a token. No I/O. */
import type { GrantIndex } from '../../cache/index/grant-index.ts';
import { normaliseClientId, normaliseResource } from '../../cache/index/identifiers.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { Grant, Granted, PodFacts, RefusedPod, Unowned } from './grant.ts';
import {
  chooseIdentity,
  type Choice,
  type GrantPolicy,
  type IdentitySelector,
} from './choose-identity.ts';
import type { CallerState } from '../callers/identify.ts';
import type { IdentityOwners } from './identity-owners.ts';
import type { NearNames } from './near-names.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';
import type { UpstreamChoice, UpstreamResolver } from './resolve-upstream.ts';
import type { WorkloadIdentities } from './workload-identities.ts';

export interface GrantState extends CallerState {
  readonly grants: GrantIndex;
  readonly owners: IdentityOwners;
  readonly upstreams: UpstreamResolver;
  readonly workloadIdentities: WorkloadIdentities | undefined;
  readonly nearNames: NearNames;
  /** Why nothing is granted any more: what the watches delivered is older than the limit. */
  rightsProblem(): string | undefined;
}

/** Grows whenever a grant may have changed; each summand only grows. */
export function generationOf({
  grants,
  owners,
  workloadIdentities,
}: Pick<GrantState, 'grants' | 'owners' | 'workloadIdentities'>): number {
  return grants.generation + owners.generation + (workloadIdentities?.generation ?? 0);
}

/** The parameters of a request; without a resource, only the checks of any token are made. */
export interface GrantQuery {
  readonly selector: IdentitySelector;
  readonly resource: string | undefined;
}

const byHostNetwork = 'host network';

/** Whether the calls of a pod are the node's own: it is on the host network, and nothing names an identity for it. */
export function isOfNode(grant: Grant): boolean {
  return grant.kind === 'granted' && grant.by === byHostNetwork;
}

export function decideGrant(
  pod: Pod,
  query: GrantQuery,
  clusterState: GrantState,
  policy: GrantPolicy,
  nowWallMs: number,
): Grant {
  const grants = clusterState.grants.grantsOf(pod.uid);
  if (grants === undefined) return refused(pod, 'pod_unknown', { about: 'pod-gone' }, true);
  if (pod.hostNetwork && policy.hostNetwork === 'refuse') {
    return refused(pod, 'host_network_refused', { about: 'host-network' });
  }
  const isUnlabeled = grants.kind === 'no-label';
  const found = isUnlabeled ? ofServiceAccount(pod, query.selector, clusterState) : undefined;
  // The add-ons of a cluster use the node's own identities, as they did before pods on the host
  // network could be told apart.
  if (found === undefined && isUnlabeled && pod.hostNetwork) {
    return ofNode(pod, query.selector, byHostNetwork);
  }
  const problem = clusterState.rightsProblem();
  if (problem !== undefined) {
    return refused(pod, 'agent_not_synced', { about: 'old-rights', problem });
  }
  if (found !== undefined) return found;
  const choice = chooseIdentity(grants, query.selector, policy, nowWallMs);
  const owned = (decision: Granted | RefusedPod): Granted | RefusedPod =>
    holdToOwners(decision, clusterState.owners, policy, nowWallMs);
  switch (choice.kind) {
    case 'node':
      return ofException(pod, choice, clusterState);
    case 'identity':
      return owned(
        ofIdentity(pod, choice.identity, query.resource, choice.by, clusterState.upstreams),
      );
    case 'by-object-id': {
      const all = choice.candidates.map((identity) =>
        owned(ofIdentity(pod, identity, query.resource, 'object_id', clusterState.upstreams)),
      );
      const candidates = all.filter((each) => each.kind === 'granted');
      const unowned = all.find(
        (each) => each.kind === 'refused' && each.reason === 'identity_not_owned',
      );
      // It is not looked up which of them has the object id: the first one is named.
      if (candidates.length === 0 && unowned?.kind === 'refused') return unowned;
      return { kind: 'by-object-id', pod, candidates, objectId: choice.objectId };
    }
    case 'refused': {
      const meant = clusterState.nearNames.meantBy(grants, pod.namespace, nowWallMs);
      const isPending = choice.reason.endsWith('_pending');
      return refused(pod, choice.reason, { about: 'choice', choice, meant }, isPending);
    }
  }
}

function ofException(
  pod: Pod,
  { selector, exception }: Extract<Choice, { kind: 'node' }>,
  clusterState: GrantState,
): Granted | RefusedPod {
  const entry = clusterState.owners.refusing(pod.namespace);
  if (entry !== undefined) {
    const { name } = exception;
    return refuseUnowned({ kind: 'AzurePodIdentityException', name, entry }, pod);
  }
  return ofNode(pod, selector, `exception ${exception.name}`);
}

/** Objects applied together arrive in any order: the grant of a young identity may still arrive. */
function holdToOwners(
  decision: Granted | RefusedPod,
  owners: IdentityOwners,
  { graceMs }: GrantPolicy,
  nowWallMs: number,
): Granted | RefusedPod {
  if (decision.kind === 'refused' || decision.identity === undefined) return decision;
  const { pod, identity, upstream } = decision;
  const entry = owners.refusing(identity.namespace, upstream);
  if (entry === undefined) return decision;
  const isYoung = Math.abs(nowWallMs - identity.createdAtWallMs) < graceMs;
  return refuseUnowned({ kind: 'AzureIdentity', name: identity.name, entry }, pod, isYoung);
}

export function refuseUnowned(unowned: Unowned, pod: Pod, isPending = false): RefusedPod {
  return refused(pod, 'identity_not_owned', { about: 'not-owned', unowned }, isPending);
}

function ofNode(pod: Pod, selector: IdentitySelector, by: string): Granted {
  const upstream: UpstreamIdentity = selector.kind === 'none' ? { kind: 'unnamed' } : selector;
  return { kind: 'granted', pod, upstream, auxiliary: [], identity: undefined, by };
}

function ofIdentity(
  pod: Pod,
  identity: Identity,
  resource: string | undefined,
  by: string,
  upstreams: UpstreamResolver,
): Granted | RefusedPod {
  if (resource !== undefined && !isFor(identity, resource)) {
    return refused(pod, 'resource_not_allowed', { about: 'resource', identity, resource });
  }
  const choice = upstreams.of(identity, pod);
  if (choice.kind === 'unusable') return refuseUnusable(choice, identity, pod);
  const { upstream, auxiliary } = choice;
  return { kind: 'granted', pod, upstream, auxiliary, identity, by };
}

/** An identity without a list of resources is for all of them. */
function isFor({ allowedResources }: Identity, resource: string): boolean {
  if (allowedResources === undefined) return true;
  const wanted = normaliseResource(resource);
  return allowedResources.includes(wanted);
}

const accountReasons = {
  // Not pending, since the request has waited for this read: a retry of the caller starts another.
  unavailable: 'agent_not_synced',
  unreadable: 'credential_invalid',
  unannotated: 'no_binding_label',
} as const;

/** Undefined when the option is off or the pod is not set up for Workload Identity. */
function ofServiceAccount(
  pod: Pod,
  selector: IdentitySelector,
  clusterState: GrantState,
): Granted | RefusedPod | undefined {
  const choice = clusterState.workloadIdentities?.of(pod);
  switch (choice?.kind) {
    case undefined:
    case 'none':
      return undefined;
    case 'unknown':
      return refused(pod, 'agent_not_synced', { about: 'account-pending' }, true);
    case 'unavailable':
    case 'unreadable':
    case 'unannotated': {
      const { kind, account } = choice;
      return refused(pod, accountReasons[kind], { about: `account-${kind}`, account });
    }
    case 'application': {
      const { clientId, tenantId } = choice;
      const isOther =
        selector.kind !== 'none' &&
        (selector.kind !== 'client_id' || normaliseClientId(selector.value) !== clientId);
      if (isOther) {
        return refused(pod, 'selector_not_bound', { about: 'account-selector', selector });
      }
      const resolved = clusterState.upstreams.ofServiceAccount(pod, clientId, tenantId);
      if (resolved.kind === 'unusable') return refuseUnusable(resolved, undefined, pod);
      const { upstream, auxiliary } = resolved;
      const by = 'service account';
      return { kind: 'granted', pod, upstream, auxiliary, identity: undefined, by };
    }
  }
}

export function refuseUnusable(
  { reason, problem }: Extract<UpstreamChoice, { kind: 'unusable' }>,
  identity: Identity | undefined,
  pod: Pod,
): RefusedPod {
  return refused(pod, reason, { about: 'unusable', identity, problem });
}

function refused(
  pod: Pod,
  reason: RefusedPod['reason'],
  facts: PodFacts,
  isPending = false,
): RefusedPod {
  return { kind: 'refused', reason, facts, isPending, pod };
}
