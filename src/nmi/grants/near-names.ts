/** Names that were probably meant: of the pod's own namespace alone, since pods read them. */
import type { GrantIndex, PodGrants } from '../../cache/index/grant-index.ts';
import type { ObjectRef } from '../../cache/index/objects.ts';

/** A search takes 0.5 ms for 20,000 objects, and a pod may cause thousands a second. */
const keptMs = 10_000;

interface Kept {
  readonly meant: string | undefined;
  readonly atWallMs: number;
}

export class NearNames {
  readonly #index: Pick<GrantIndex, 'allBindings' | 'allIdentities'>;
  readonly #kept = new WeakMap<PodGrants, Kept>();

  constructor(index: Pick<GrantIndex, 'allBindings' | 'allIdentities'>) {
    this.#index = index;
  }

  /** The selector or identity to use instead; undefined if none is similar or nothing is missing. */
  meantBy(grants: PodGrants, namespace: string, nowWallMs: number): string | undefined {
    const known = this.#kept.get(grants);
    if (known !== undefined && Math.abs(nowWallMs - known.atWallMs) < keptMs) return known.meant;
    const meant = this.#search(grants, namespace);
    this.#kept.set(grants, { meant, atWallMs: nowWallMs });
    return meant;
  }

  #search(grants: PodGrants, namespace: string): string | undefined {
    if (grants.kind === 'no-identity') {
      const wanted = grants.bindings[0]?.identityName ?? '';
      return nearestIn(namespace, wanted, this.#index.allIdentities(), ({ name }) => name);
    }
    // Bindings for other service accounts match exactly, and the refusal names them.
    if (grants.kind !== 'no-binding' || grants.bindingsForOtherAccounts.length > 0)
      return undefined;
    return nearestIn(namespace, grants.label, this.#index.allBindings(), (each) => each.selector);
  }
}

/** The first by name, whatever the order in which objects arrived. */
export function nearestIn<T extends ObjectRef>(
  namespace: string,
  wanted: string,
  objects: Iterable<T>,
  nameOf: (object: T) => string,
): string | undefined {
  let meant: string | undefined;
  for (const object of objects) {
    if (object.namespace !== namespace) continue;
    const name = nameOf(object);
    if (meant !== undefined && meant <= name) continue;
    if (isSlip(wanted, name)) meant = name;
  }
  return meant;
}

/**
 * Whether two texts differ in letter case or blanks around them alone, or by one character:
 * replaced, added, left out or swapped with the next. Linear. Texts shorter than three characters
 * may differ in letter case only.
 */
export function isSlip(one: string, other: string): boolean {
  if (one === other) return false;
  const [from, to] = [one.trim().toLowerCase(), other.trim().toLowerCase()];
  if (from === to) return true;
  if (Math.abs(from.length - to.length) > 1) return false;
  const shorter = Math.min(from.length, to.length);
  let before = 0;
  while (from[before] === to[before]) before++;
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
