/**
 * May this pod have a token, and of which identity: the caller's grants and the request's selector
 * put together, every time anew. Pure apart from the time it is given.
 */
import type { GrantIndex } from '../../cache/index/grant-index.ts';
import { normaliseClientId, normaliseResource } from '../../cache/index/identifiers.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import { refuse, type Answer } from '../base/answers.ts';
import type { Authorisation, Authorised } from './authorization.ts';
import { decideGrant, type GrantPolicy, type IdentitySelector } from './grant.ts';
import type { Knowledge, Refused } from './identify.ts';
import {
  explainForeignSelector,
  explainHostNetwork,
  explainNoImds,
  explainRefusal,
  explainResource,
  explainUnannotated,
  explainUnreadable,
  explainUnusable,
} from './refusal-text.ts';
import type { UpstreamIdentity } from '../sources/source.ts';
import type { UpstreamDirectory } from './resolve-upstream.ts';
import type { WorkloadIdentities } from './workload-identities.ts';

export interface GrantKnowledge extends Knowledge {
  readonly grants: GrantIndex;
  readonly upstreams: UpstreamDirectory;
  /** Undefined while the option is off. */
  readonly workloadIdentities: WorkloadIdentities | undefined;
}

/** What is asked for; without a resource, what any token depends on. */
export interface AuthoriseQuery {
  readonly selector: IdentitySelector;
  readonly resource: string | undefined;
}

export function authorise(
  pod: Pod,
  query: AuthoriseQuery,
  knowledge: GrantKnowledge,
  policy: GrantPolicy,
  nowWallMs: number,
): Authorisation {
  const grants = knowledge.grants.grantsOf(pod.uid);
  if (grants === undefined) {
    const answer = refuse('pod_unknown', `Pod ${pod.namespace}/${pod.name} is gone. Retry.`);
    return refused(pod, answer, true);
  }
  if (pod.hostNetwork && policy.hostNetwork === 'refuse') {
    return refused(pod, explainHostNetwork(pod), false);
  }
  if (grants.kind === 'no-label') {
    const found = ofServiceAccount(pod, query.selector, knowledge);
    if (found !== undefined) return found;
    // The add-ons of a cluster live on the node's own identities, and their calls came straight
    // to the real service for as long as nobody could tell them apart.
    if (pod.hostNetwork) return ofNode(pod, query.selector, 'host network', knowledge);
  }
  const grant = decideGrant(grants, query.selector, policy, nowWallMs);
  switch (grant.kind) {
    case 'node':
      return ofNode(pod, grant.selector, `exception ${grant.exception.name}`, knowledge);
    case 'identity':
      return ofIdentity(pod, grant.identity, query.resource, grant.by, knowledge.upstreams);
    case 'by-object-id': {
      const candidates = grant.candidates.flatMap((identity) => {
        const { upstreams } = knowledge;
        const candidate = ofIdentity(pod, identity, query.resource, 'object_id', upstreams);
        return candidate.kind === 'authorised' ? [candidate] : [];
      });
      return { kind: 'by-object-id', pod, candidates, objectId: grant.objectId };
    }
    case 'refused':
      return refused(pod, explainRefusal(grant, pod), 'transient' in grant && grant.transient);
  }
}

/** Whatever the node's own service gives for what is named. */
function ofNode(
  pod: Pod,
  selector: IdentitySelector,
  by: string,
  { upstreams }: GrantKnowledge,
): Authorised | Refused {
  if (!upstreams.hasImds) return refused(pod, explainNoImds(pod), false);
  const upstream: UpstreamIdentity = selector.kind === 'none' ? { kind: 'unnamed' } : selector;
  return { kind: 'authorised', pod, upstream, auxiliary: [], identity: undefined, by };
}

function ofIdentity(
  pod: Pod,
  identity: Identity,
  resource: string | undefined,
  by: string,
  upstreams: UpstreamDirectory,
): Authorised | Refused {
  if (resource !== undefined && !isFor(identity, resource)) {
    return refused(pod, explainResource(identity, resource, pod), false);
  }
  const choice = upstreams.of(identity, pod);
  if (choice.kind === 'unusable') {
    return refused(pod, explainUnusable(choice, identity, pod), false);
  }
  const { upstream, auxiliary } = choice;
  return { kind: 'authorised', pod, upstream, auxiliary, identity, by };
}

/** What an identity is not limited to it is for. */
function isFor({ allowedResources }: Identity, resource: string): boolean {
  if (allowedResources === undefined) return true;
  const wanted = normaliseResource(resource);
  return allowedResources.some((allowed) => normaliseResource(allowed) === wanted);
}

/** Undefined when the pod is not one that its service account gives an identity to. */
function ofServiceAccount(
  pod: Pod,
  selector: IdentitySelector,
  knowledge: GrantKnowledge,
): Authorised | Refused | undefined {
  const choice = knowledge.workloadIdentities?.of(pod);
  switch (choice?.kind) {
    case undefined:
    case 'none':
      return undefined;
    case 'unknown': {
      const text = 'The service account of this pod is being read. Retry.';
      return refused(pod, refuse('agent_not_synced', text), true);
    }
    case 'unreadable':
      return refused(pod, explainUnreadable(pod, choice.account), false);
    case 'unannotated':
      return refused(pod, explainUnannotated(pod, choice.account), false);
    case 'application': {
      const { clientId, tenantId } = choice;
      const isOther =
        selector.kind !== 'none' &&
        (selector.kind !== 'client_id' || normaliseClientId(selector.value) !== clientId);
      if (isOther) return refused(pod, explainForeignSelector(pod, selector), false);
      const resolved = knowledge.upstreams.ofServiceAccount(pod, clientId, tenantId);
      if (resolved.kind === 'unusable') {
        return refused(pod, explainUnusable(resolved, undefined, pod), false);
      }
      const { upstream, auxiliary } = resolved;
      const by = 'service account';
      return { kind: 'authorised', pod, upstream, auxiliary, identity: undefined, by };
    }
  }
}

function refused(pod: Pod, answer: Answer, isPending: boolean): Refused {
  return { kind: 'refused', answer, isPending, pod };
}
