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
  /** AzureIdentities of the namespace that have it. */
  readonly usedBy: readonly string[];
  /** Other namespaces with AzureIdentities that have it, too. */
  readonly alsoIn: readonly string[];
}

export interface NeededGrant {
  readonly name: string;
  readonly namespace: string;
  readonly clientIDs: readonly NeededId[];
  readonly resourceIDs: readonly NeededId[];
  readonly nodeIdentities: boolean;
}

/** An AzureIdentity that a binding names, by the normal form of its id. */
interface Use {
  readonly namespace: string;
  readonly name: string;
  readonly field: 'clientIDs' | 'resourceIDs';
  readonly id: string;
  readonly isGranted: boolean;
}

/** One for each namespace that lacks something. */
export function neededGrants(objects: ClusterObjects): readonly NeededGrant[] {
  const index = new OwnerIndex();
  index.grants.replace(objects.grants);
  const owners = new IdentityOwners(index, 'enforce');
  const uses = usesOf(objects, owners);
  const usesById = Map.groupBy(uses, ({ id }) => id);
  const lacking = Map.groupBy(
    uses.filter(({ isGranted }) => !isGranted),
    ({ namespace }) => namespace,
  );
  const excepted = new Set(
    objects.exceptions
      .filter(({ podLabels }) => Object.keys(podLabels).length > 0)
      .map(({ namespace }) => namespace)
      .filter((namespace) => owners.lackingForException(namespace) !== undefined),
  );
  const namespaces = new Set([...lacking.keys(), ...excepted]);
  return [...namespaces].toSorted().map((namespace): NeededGrant => {
    const own = lacking.get(namespace) ?? [];
    const idsOf = (field: Use['field']): readonly NeededId[] => {
      const byId = Map.groupBy(
        own.filter((each) => each.field === field),
        ({ id }) => id,
      );
      return [...byId.keys()].toSorted().map((id) => ({
        id,
        usedBy: namesOf(byId.get(id), 'name'),
        alsoIn: namesOf(usesById.get(id), 'namespace').filter((each) => each !== namespace),
      }));
    };
    return {
      name: freeName(namespace, objects.grants),
      namespace,
      clientIDs: idsOf('clientIDs'),
      resourceIDs: idsOf('resourceIDs'),
      nodeIdentities: excepted.has(namespace),
    };
  });
}

function usesOf({ identities, bindings }: ClusterObjects, owners: IdentityOwners): readonly Use[] {
  // The authority has no influence on the owner of an identity.
  const upstreams = new UpstreamResolver(() => ({ ok: true, authority: '', audience: '' }));
  const bound = new Set(
    bindings
      .filter(({ selector }) => selector !== '')
      .map(({ namespace, identityName }) => objectKey(namespace, identityName)),
  );
  return identities.flatMap((identity): readonly Use[] => {
    const { namespace, name } = identity;
    if (!bound.has(objectKey(namespace, name))) return [];
    const choice = upstreams.of(identity, { namespace, serviceAccount: '' });
    const entry = choice.kind === 'upstream' ? entryFor(choice.upstream) : undefined;
    if (choice.kind !== 'upstream' || entry === undefined || entry.field === 'nodeIdentities') {
      return [];
    }
    const { field } = entry;
    const id = field === 'clientIDs' ? normaliseClientId(entry.id) : normaliseResourceId(entry.id);
    const isGranted = owners.lacking(namespace, choice.upstream) === undefined;
    return [{ namespace, name, field, id, isGranted }];
  });
}

function namesOf(uses: readonly Use[] = [], field: 'name' | 'namespace'): readonly string[] {
  return [...new Set(uses.map((each) => each[field]))].toSorted();
}

/**
 * Of a grant that is added: applied under the name of one that exists, it would replace its lists. The
 * name of a namespace has no dot, so a further object never has the name of another namespace.
 */
function freeName(namespace: string, grants: readonly IdentityGrant[]): string {
  const taken = new Set(grants.map(({ name }) => name));
  let name = namespace;
  for (let at = 2; taken.has(name); at++) name = `${namespace}.${at}`;
  return name;
}
