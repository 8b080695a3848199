/** The grants that a cluster lacks for `--identity-owners=enforce` to refuse no pod. Pure. */
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import { objectKey } from '../../cache/index/object-name.ts';
import type { Binding, Exception, Identity, IdentityGrant } from '../../cache/index/objects.ts';
import { OwnerIndex } from '../../cache/index/owner-index.ts';
import { IdentityOwners } from '../../nmi/grants/identity-owners.ts';
import { UpstreamResolver } from '../../nmi/grants/resolve-upstream.ts';
import { createDoubts, type IdEntry, type Surroundings } from './grant-doubts.ts';

export interface ClusterObjects extends Surroundings {
  readonly identities: readonly Identity[];
  readonly bindings: readonly Binding[];
  readonly exceptions: readonly Exception[];
  readonly grants: readonly IdentityGrant[];
}

export interface NeededId {
  readonly id: string;
  readonly usedBy: readonly string[];
  readonly doubts: readonly string[];
}

export interface NeededGrant {
  readonly name: string;
  readonly namespace: string;
  readonly clientIDs: readonly NeededId[];
  readonly resourceIDs: readonly NeededId[];
  readonly nodeIdentities: boolean;
}

/** An AzureIdentity that a binding names, by the normal form of its id. */
interface Use extends IdEntry {
  readonly name: string;
  readonly selectors: readonly string[];
}

export interface NeededGrants {
  readonly grants: readonly NeededGrant[];
  /** False if the identity of the kubelet may be among them, and nothing shows which it is. */
  readonly knowsKubelet: boolean;
}

export function neededGrants(objects: ClusterObjects): NeededGrants {
  const index = new OwnerIndex();
  index.grants.replace(objects.grants);
  const owners = new IdentityOwners(index, 'enforce');
  const doubts = createDoubts(objects.identities, objects.grants, objects);
  const lacking = Map.groupBy(usesOf(objects, owners), ({ namespace }) => namespace);
  const excepted = new Set(
    objects.exceptions
      .filter(({ podLabels }) => Object.keys(podLabels).length > 0)
      .map(({ namespace }) => namespace)
      .filter((namespace) => owners.lacking(namespace) !== undefined),
  );
  const namespaces = new Set([...lacking.keys(), ...excepted]);
  const grants = [...namespaces].toSorted().map((namespace): NeededGrant => {
    const own = lacking.get(namespace) ?? [];
    const isOdd = own.some((each) => doubts.isOdd(each));
    const idsOf = (field: Use['field']): readonly NeededId[] => {
      const ofField = own.filter((each) => each.field === field);
      const byId = Map.groupBy(ofField, ({ id }) => id);
      return [...byId.keys()].toSorted().map((id) => {
        const uses = byId.get(id) ?? [];
        const selectors = uses.flatMap((each) => each.selectors);
        const found = doubts.about({ namespace, field, id }, selectors);
        const odd = isOdd ? ['the namespace names an identity of others'] : [];
        const usedBy = [...new Set(uses.map(({ name }) => name))].toSorted();
        return { id, usedBy, doubts: found.length > 0 ? found : odd };
      });
    };
    return {
      name: freeName(namespace, objects.grants),
      namespace,
      clientIDs: idsOf('clientIDs'),
      resourceIDs: idsOf('resourceIDs'),
      nodeIdentities: excepted.has(namespace),
    };
  });
  return { grants, knowsKubelet: doubts.knowsKubelet };
}

function usesOf({ identities, bindings }: ClusterObjects, owners: IdentityOwners): readonly Use[] {
  // The authority has no influence on the owner of an identity.
  const none = { ok: true, authority: '', audience: '', accountAudience: '' } as const;
  const upstreams = new UpstreamResolver(() => none);
  const bound = Map.groupBy(
    bindings.filter(({ selector }) => selector !== ''),
    ({ namespace, identityName }) => objectKey(namespace, identityName),
  );
  return identities.flatMap((identity): readonly Use[] => {
    const { namespace, name } = identity;
    const selectors = bound.get(objectKey(namespace, name))?.map(({ selector }) => selector);
    if (selectors === undefined) return [];
    const choice = upstreams.of(identity, { namespace, serviceAccount: '' });
    const entry =
      choice.kind === 'upstream' ? owners.lacking(namespace, choice.upstream) : undefined;
    if (entry === undefined || entry.field === 'nodeIdentities') return [];
    const { field } = entry;
    const id = field === 'clientIDs' ? normaliseClientId(entry.id) : normaliseResourceId(entry.id);
    return [{ namespace, name, field, id, selectors }];
  });
}

/** It would replace a grant of that name. The name of a namespace has no dot. */
function freeName(namespace: string, grants: readonly IdentityGrant[]): string {
  const taken = new Set(grants.map(({ name }) => name));
  let name = namespace;
  for (let at = 2; taken.has(name); at++) name = `${namespace}.${at}`;
  return name;
}
