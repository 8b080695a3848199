/**
 * The name that a refused pod probably meant: one typing error or another letter case away, in its
 * own namespace. Only names of that namespace are compared, since pods read the answer.
 */
import type { GrantIndex, PodGrants } from '../../cache/index/grant-index.ts';
import type { ObjectRef } from '../../cache/index/objects.ts';

/** A binding or identity of the pod's namespace with a name that is nearly the wanted one. */
export interface NearMiss {
  readonly wanted: string;
  readonly meant: string;
}

/**
 * A search visits every object of the cluster (0.5 ms for 20,000), and a pod may send thousands of
 * refused requests a second. So a pod's result is kept, with its grants, for this long.
 */
const keptMs = 10_000;
const kept = new WeakMap<PodGrants, { readonly near: NearMiss | undefined; atWallMs: number }>();

/** Undefined if no name is similar, or no object is missing. */
export function nearMissOf(
  grants: PodGrants,
  namespace: string,
  index: Pick<GrantIndex, 'allBindings' | 'allIdentities'>,
  nowWallMs: number,
): NearMiss | undefined {
  const known = kept.get(grants);
  if (known !== undefined && Math.abs(nowWallMs - known.atWallMs) < keptMs) return known.near;
  const near = search(grants, namespace, index);
  kept.set(grants, { near, atWallMs: nowWallMs });
  return near;
}

function search(
  grants: PodGrants,
  namespace: string,
  index: Pick<GrantIndex, 'allBindings' | 'allIdentities'>,
): NearMiss | undefined {
  switch (grants.kind) {
    case 'no-binding':
      // Bindings for other service accounts match exactly, and the refusal names them.
      if (grants.bindingsForOtherAccounts.length > 0) return undefined;
      return nearestOf(grants.label, namespace, index.allBindings(), ({ selector }) => selector);
    case 'no-identity': {
      const [first] = grants.bindings;
      const wanted = first?.identityName ?? '';
      return nearestOf(wanted, namespace, index.allIdentities(), ({ name }) => name);
    }
    default:
      return undefined;
  }
}

/** The first by name, whatever the order in which objects arrived. */
function nearestOf<T extends ObjectRef>(
  wanted: string,
  namespace: string,
  objects: Iterable<T>,
  nameOf: (object: T) => string,
): NearMiss | undefined {
  let meant: string | undefined;
  for (const object of objects) {
    if (object.namespace !== namespace) continue;
    const name = nameOf(object);
    if (meant !== undefined && meant <= name) continue;
    if (isSlip(wanted, name)) meant = name;
  }
  return meant === undefined ? undefined : { wanted, meant };
}

/**
 * Whether two texts differ in letter case alone, or in up to two characters beside each other: one
 * replaced, added, left out or swapped with the next. Linear. Texts shorter than three characters
 * may differ in letter case only.
 */
export function isSlip(one: string, other: string): boolean {
  if (one === other || Math.abs(one.length - other.length) > 1) return false;
  const [from, to] = [one.toLowerCase(), other.toLowerCase()];
  if (from === to) return true;
  const shorter = Math.min(from.length, to.length);
  let before = 0;
  while (before < shorter && from[before] === to[before]) before++;
  let behind = 0;
  while (behind < shorter - before && from.at(-1 - behind) === to.at(-1 - behind)) behind++;
  const [changedFrom, changedTo] = [
    from.slice(before, from.length - behind),
    to.slice(before, to.length - behind),
  ];
  const isSwap =
    changedFrom.length === 2 && changedFrom[0] === changedTo[1] && changedFrom[1] === changedTo[0];
  const isOne = changedFrom.length <= 1 && changedTo.length <= 1;
  return shorter >= 3 && (isOne || isSwap);
}
