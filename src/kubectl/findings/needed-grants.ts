/**
 * The grants that the objects of a cluster need so that `--identity-owners=enforce` refuses no pod
 * that is served today: for each namespace, what its bindings and exceptions give and no grant
 * gives yet. Pure.
 */
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import { objectKey } from '../../cache/index/object-name.ts';
import type { Binding, Exception, Identity, IdentityGrant } from '../../cache/index/objects.ts';
import { OwnerIndex } from '../../cache/index/owner-index.ts';
import { entryFor, IdentityOwners } from '../../nmi/grants/identity-owners.ts';
import { UpstreamResolver } from '../../nmi/grants/resolve-upstream.ts';

export interface ClusterObjects {
  readonly identities: readonly Identity[];
  readonly bindings: readonly Binding[];
  readonly exceptions: readonly Exception[];
  /** The existing grants. */
  readonly grants: readonly IdentityGrant[];
}

export interface NeededId {
  readonly id: string;
  /** AzureIdentities of the namespace that have it without a grant; empty for a granted id. */
  readonly usedBy: readonly string[];
  /** Other namespaces with AzureIdentities that have it, too. */
  readonly alsoIn: readonly string[];
}

export interface NeededGrant {
  readonly name: string;
  readonly namespace: string;
  readonly clientIds: readonly NeededId[];
  readonly resourceIds: readonly NeededId[];
  readonly nodeIdentities: boolean;
}

export interface NeededGrants {
  readonly grants: readonly NeededGrant[];
  /** AzureIdentities that no binding names: they give no pod a token. */
  readonly unbound: number;
}

/** How many entries one object may list. */
const maxima = { clientIds: 256, resourceIds: 64 };

/** Normal form of an id → names of the AzureIdentities that have it. */
type IdUses = Map<string, string[]>;

interface Need {
  readonly clientIds: IdUses;
  readonly resourceIds: IdUses;
  nodeIdentities: boolean;
}

/** One for each namespace that lacks a grant, or several if one object cannot list all entries. */
export function neededGrants(objects: ClusterObjects): NeededGrants {
  const { identities, bindings, exceptions, grants } = objects;
  const index = new OwnerIndex();
  index.grants.replace(grants);
  const owners = new IdentityOwners(index, 'enforce');
  // The authority has no influence on the owner of an identity.
  const upstreams = new UpstreamResolver(() => ({ ok: true, authority: '', audience: '' }));
  const bound = new Set(
    bindings
      .filter(({ selector }) => selector !== '')
      .map(({ namespace, identityName }) => objectKey(namespace, identityName)),
  );
  const needs = new Map<string, Need>();
  const namespacesOf = new Map<string, Set<string>>();
  let unbound = 0;
  for (const identity of identities) {
    const { namespace, name } = identity;
    if (!bound.has(objectKey(namespace, name))) {
      unbound++;
      continue;
    }
    const choice = upstreams.of(identity, { namespace, serviceAccount: '' });
    const entry = choice.kind === 'upstream' ? entryFor(choice.upstream) : undefined;
    if (choice.kind !== 'upstream' || entry === undefined || entry.field === 'nodeIdentities') {
      continue;
    }
    const isClient = entry.field === 'clientIDs';
    const id = isClient ? normaliseClientId(entry.id) : normaliseResourceId(entry.id);
    namespacesOf.set(id, (namespacesOf.get(id) ?? new Set()).add(namespace));
    if (owners.lacking(namespace, choice.upstream) === undefined) continue;
    const need = needOf(needs, namespace);
    const uses = isClient ? need.clientIds : need.resourceIds;
    uses.set(id, [...(uses.get(id) ?? []), name]);
  }
  for (const { namespace, podLabels } of exceptions) {
    const isForNobody = Object.keys(podLabels).length === 0;
    if (isForNobody || owners.lackingForException(namespace) === undefined) continue;
    needOf(needs, namespace).nodeIdentities = true;
  }
  const alsoIn = (id: string, namespace: string): readonly string[] =>
    [...(namespacesOf.get(id) ?? [])].filter((other) => other !== namespace).toSorted();
  const needed = [...needs]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([namespace, need]) => grantsFor(namespace, need, grants, alsoIn));
  return { grants: needed, unbound };
}

function needOf(needs: Map<string, Need>, namespace: string): Need {
  const known = needs.get(namespace);
  if (known !== undefined) return known;
  const need: Need = { clientIds: new Map(), resourceIds: new Map(), nodeIdentities: false };
  needs.set(namespace, need);
  return need;
}

/**
 * An existing grant with the same name and for this namespace only keeps its entries, since
 * applying the new one replaces its lists. The name of a namespace has no dot, so a further object
 * never has the name of another namespace.
 */
function grantsFor(
  namespace: string,
  need: Need,
  grants: readonly IdentityGrant[],
  alsoIn: (id: string, namespace: string) => readonly string[],
): readonly NeededGrant[] {
  const same = grants.find(({ name }) => name === namespace);
  const isOwn = same?.namespaces.length === 1 && same.namespaces[0] === namespace;
  const first = same === undefined || isOwn ? namespace : `${namespace}.identities`;
  const kept = isOwn ? same : undefined;
  const listed = (uses: IdUses, granted: readonly string[] = []): readonly NeededId[] => {
    for (const id of granted) if (!uses.has(id)) uses.set(id, []);
    return [...uses]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([id, usedBy]) => ({ id, usedBy: usedBy.toSorted(), alsoIn: alsoIn(id, namespace) }));
  };
  const clientIds = listed(need.clientIds, kept?.clientIds);
  const resourceIds = listed(need.resourceIds, kept?.resourceIds);
  const count = Math.max(
    1,
    Math.ceil(clientIds.length / maxima.clientIds),
    Math.ceil(resourceIds.length / maxima.resourceIds),
  );
  return Array.from({ length: count }, (_, nth): NeededGrant => {
    const part = (ids: readonly NeededId[], max: number) => ids.slice(nth * max, (nth + 1) * max);
    return {
      name: nth === 0 ? first : `${first}.${nth + 1}`,
      namespace,
      clientIds: part(clientIds, maxima.clientIds),
      resourceIds: part(resourceIds, maxima.resourceIds),
      nodeIdentities: nth === 0 && (need.nodeIdentities || kept?.nodeIdentities === true),
    };
  });
}
