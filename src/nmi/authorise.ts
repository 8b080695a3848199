/**
 * May this pod have a token, and of which identity: the caller's grants and the request's selector
 * put together, every time anew. Pure apart from the clock it is given.
 */
import type { GrantIndex } from '../cache/grant-index.ts';
import { isGuid, isResourceId } from '../cache/identifiers.ts';
import type { Identity, Pod } from '../cache/objects.ts';
import { decideGrant, type GrantPolicy } from './grant.ts';
import type { Authorisation, Authorised } from './authorisation.ts';
import type { Knowledge, Refused } from './identify.ts';
import { explainMisshapen, explainRefusal } from './refusal-text.ts';
import { refuse } from './answers.ts';
import type { UpstreamIdentity } from './sources/source.ts';
import type { TokenQuery } from './token-query.ts';

export interface GrantKnowledge extends Knowledge {
  readonly grants: GrantIndex;
}

export function authorise(
  pod: Pod,
  query: TokenQuery,
  knowledge: GrantKnowledge,
  policy: GrantPolicy,
  nowWallMs: number,
): Authorisation {
  const grants = knowledge.grants.grantsOf(pod.uid);
  if (grants === undefined) {
    const answer = refuse('pod_unknown', `Pod ${pod.namespace}/${pod.name} is gone. Retry.`);
    return { kind: 'refused', answer, isPending: true, pod };
  }
  const grant = decideGrant(grants, query.selector, policy, nowWallMs);
  switch (grant.kind) {
    case 'node': {
      const { selector } = grant;
      const upstream: UpstreamIdentity = selector.kind === 'none' ? { kind: 'unnamed' } : selector;
      const by = `exception ${grant.exception.name}`;
      return { kind: 'authorised', pod, upstream, identity: undefined, by };
    }
    case 'identity':
      return ofIdentity(pod, grant.identity, grant.by);
    case 'by-object-id': {
      const candidates = grant.candidates.flatMap((identity) => {
        const candidate = ofIdentity(pod, identity, 'object_id');
        return candidate.kind === 'authorised' ? [candidate] : [];
      });
      return { kind: 'by-object-id', pod, candidates, objectId: grant.objectId };
    }
    case 'refused': {
      const isPending = 'transient' in grant && grant.transient;
      return { kind: 'refused', answer: explainRefusal(grant, pod), isPending, pod };
    }
  }
}

function ofIdentity(pod: Pod, identity: Identity, by: string): Authorised | Refused {
  if (identity.type !== 0) {
    const answer = refuse(
      'identity_unsupported',
      `AzureIdentity ${identity.namespace}/${identity.name} has type ${identity.type}; ` +
        'this release serves type 0 (user-assigned identity) only.',
    );
    return { kind: 'refused', answer, isPending: false, pod };
  }
  const upstream = upstreamOf(identity);
  if (upstream === undefined) {
    return { kind: 'refused', answer: explainMisshapen(identity, pod), isPending: false, pod };
  }
  return { kind: 'authorised', pod, upstream, identity, by };
}

/**
 * How upstream is asked for an identity. Only well-formed ids go there: what one side takes for an
 * id and the other for blank (U+0085 to .NET) would be answered with the node's own identity.
 */
export function upstreamOf({ clientId, resourceId }: Identity): UpstreamIdentity | undefined {
  if (clientId !== '') return isGuid(clientId) ? { kind: 'client_id', value: clientId } : undefined;
  return isResourceId(resourceId) ? { kind: 'resource_id', value: resourceId } : undefined;
}
