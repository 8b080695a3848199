/**
 * Decides whether this pod may have this identity. Pure.
 * 1. An excepted pod gets the node's own answer for any selector.
 * 2. A named identity must be one of the pod's own; letter case, blanks and slashes are ignored.
 * 3. Without a selector the oldest identity is used, then the first by name; the strict policy
 * refuses to choose among several.
 * 4. A missing binding or identity is transient while the pod, its label or its newest binding is
 * young: objects that are applied together arrive in any order.
 */
import type { BoundGrants, PodGrants } from '../../cache/index/grant-index.ts';
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import type { Binding, Exception, Identity } from '../../cache/index/objects.ts';

export type NamedSelector = {
  readonly kind: 'client_id' | 'object_id' | 'resource_id';
  readonly value: string;
};

export type IdentitySelector = { readonly kind: 'none' } | NamedSelector;

export interface GrantPolicy {
  /** Refuse to choose when a request names none of several identities. */
  readonly strict: boolean;
  readonly graceMs: number;
  /** Whether pods on the host network are served, in modes that can identify them. */
  readonly hostNetwork: 'serve' | 'refuse';
}

interface Refusal<R extends string> {
  readonly kind: 'refused';
  readonly reason: R;
}

/** The facts an error text needs; names are of objects in the pod's namespace. */
export type ChoiceRefusal =
  | Refusal<'no_binding_label'>
  | (Refusal<'binding_missing' | 'binding_pending'> & {
      readonly label: string;
      /** Bindings of the label that are for pods under another service account, by their names. */
      readonly foreign: readonly Pick<Binding, 'name' | 'serviceAccount'>[];
    })
  | (Refusal<'identity_missing' | 'identity_pending'> & {
      readonly bindingNames: readonly string[];
      readonly missingIdentityNames: readonly string[];
    })
  | (Refusal<'selector_not_bound'> & {
      readonly selector: NamedSelector;
      readonly label: string;
      readonly identityNames: readonly string[];
      readonly missingIdentityNames: readonly string[];
    })
  | (Refusal<'identity_ambiguous'> & {
      readonly identityNames: readonly string[];
      /** As written in the identities, without the empty ones. */
      readonly clientIds: readonly string[];
    });

export type Choice =
  | {
      readonly kind: 'node';
      readonly exception: Exception;
      readonly selector: IdentitySelector;
    }
  | {
      readonly kind: 'identity';
      readonly identity: Identity;
      readonly by: 'client_id' | 'resource_id' | 'default' | 'only';
    }
  /** Objects contain no object ids: only upstream can report which candidate has it. */
  | {
      readonly kind: 'by-object-id';
      /** Never empty; only identities that upstream can distinguish from the node's own. */
      readonly candidates: readonly Identity[];
      readonly objectId: string;
    }
  | ChoiceRefusal;

const userAssigned = 0;

export function chooseIdentity(
  grants: PodGrants,
  selector: IdentitySelector,
  policy: GrantPolicy,
  nowWallMs: number,
): Choice {
  // A time further in the future than the grace period is a wrong clock, not a young object.
  const isTransient = (sinceWallMs: number): boolean =>
    Math.abs(nowWallMs - sinceWallMs) < policy.graceMs;
  switch (grants.kind) {
    case 'exception':
      return { kind: 'node', exception: grants.exception, selector };
    case 'no-label':
      return { kind: 'refused', reason: 'no_binding_label' };
    case 'no-binding':
      return {
        kind: 'refused',
        reason: isTransient(grants.sinceWallMs) ? 'binding_pending' : 'binding_missing',
        label: grants.label,
        foreign: grants.bindingsForOtherAccounts,
      };
    case 'no-identity':
      return {
        kind: 'refused',
        reason: isTransient(grants.sinceWallMs) ? 'identity_pending' : 'identity_missing',
        bindingNames: namesOf(grants.bindings),
        missingIdentityNames: identityNamesOf(grants.bindings),
      };
    case 'bound':
      return choose(grants, selector, policy);
  }
}

function choose(grants: BoundGrants, selector: IdentitySelector, policy: GrantPolicy): Choice {
  switch (selector.kind) {
    case 'none':
      return chooseUnnamed(grants, policy);
    case 'client_id': {
      const identity = grants.byClientId.get(normaliseClientId(selector.value));
      if (identity === undefined) return refuseSelector(grants, selector);
      return { kind: 'identity', identity, by: 'client_id' };
    }
    case 'resource_id': {
      const identity = grants.byResourceId.get(normaliseResourceId(selector.value));
      if (identity === undefined) return refuseSelector(grants, selector);
      return { kind: 'identity', identity, by: 'resource_id' };
    }
    case 'object_id': {
      const objectId = normaliseClientId(selector.value);
      const candidates = grants.identities.filter(isNamed);
      if (objectId === '' || candidates.length === 0) return refuseSelector(grants, selector);
      return { kind: 'by-object-id', candidates, objectId };
    }
  }
}

function chooseUnnamed(grants: BoundGrants, policy: GrantPolicy): Choice {
  const { identities } = grants;
  const [identity] = identities;
  if (policy.strict && identities.length > 1) {
    return {
      kind: 'refused',
      reason: 'identity_ambiguous',
      identityNames: namesOf(identities),
      clientIds: clientIdsOf(identities),
    };
  }
  if (identity === undefined) throw new TypeError('bound grants without an identity');
  return { kind: 'identity', identity, by: identities.length === 1 ? 'only' : 'default' };
}

function refuseSelector(grants: BoundGrants, selector: NamedSelector): ChoiceRefusal {
  return {
    kind: 'refused',
    reason: 'selector_not_bound',
    selector,
    label: grants.label,
    identityNames: namesOf(grants.identities),
    missingIdentityNames: identityNamesOf(grants.danglingBindings),
  };
}

function isNamed(identity: Identity): boolean {
  if (identity.type !== userAssigned) return true;
  const { clientId, resourceId } = identity;
  return normaliseClientId(clientId) !== '' || normaliseResourceId(resourceId) !== '';
}

function namesOf(objects: readonly { readonly name: string }[]): readonly string[] {
  return objects.map(({ name }) => name);
}

function identityNamesOf(
  bindings: readonly { readonly identityName: string }[],
): readonly string[] {
  return [...new Set(bindings.map(({ identityName }) => identityName))];
}

function clientIdsOf(identities: readonly Identity[]): readonly string[] {
  return [...new Set(identities.map(({ clientId }) => clientId.trim()))].filter((id) => id !== '');
}
