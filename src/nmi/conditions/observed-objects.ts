/**
 * The identities and bindings of the cluster with their conditions, and which of them have to be
 * evaluated again when one changes. Pure.
 */
import { maxBindingsOfLabel, oldest } from '../../cache/index/grant-index.ts';
import { Multimap } from '../../cache/index/multimap.ts';
import { objectKey, type ObjectName } from '../../cache/index/object-name.ts';
import { isSameObject, MemoryObjectStore } from '../../cache/index/object-store.ts';
import type { Binding, Identity } from '../../cache/index/objects.ts';
import { nearestIn } from '../grants/near-names.ts';
import type { Observed } from './observed.ts';

export type ObservedKind = 'identity' | 'binding';

/** Names an object of either kind. */
export function workKey(kind: ObservedKind, { namespace, name }: ObjectName): string {
  return `${kind}/${objectKey(namespace, name)}`;
}

export function parseWorkKey(key: string): ObjectName & { readonly kind: ObservedKind } {
  const [kind, namespace = '', name = ''] = key.split('/');
  return { kind: kind === 'identity' ? 'identity' : 'binding', namespace, name };
}

export class ObservedObjects {
  readonly identities = new MemoryObjectStore<Observed<Identity>>({
    changed: (before, after) => this.#identityChanged(after ?? before, after !== undefined),
    settled: () => undefined,
  });
  readonly bindings = new MemoryObjectStore<Observed<Binding>>({
    changed: (before, after) => this.#bindingChanged(before, after),
    settled: () => undefined,
  });

  /** Bindings in the next two maps, by uid. */
  readonly #filed = new Map<string, Binding>();
  readonly #bindingsByIdentity = new Multimap<Binding>();
  readonly #bindingsBySelector = new Multimap<Binding>();
  /** The uids of bindings that are used, for selectors that have too many. */
  readonly #counting = new Map<string, ReadonlySet<string>>();
  #touched = new Set<string>();
  readonly #touchedSelectors = new Set<string>();
  #isOwnersTouched = false;

  touch(key: string): void {
    this.#touched.add(key);
  }

  touchAll(kind: ObservedKind): void {
    const all = kind === 'identity' ? this.identities.all() : this.bindings.all();
    for (const object of all) this.touch(workKey(kind, object));
  }

  /** An `AzureIdentityGrant` has changed, and any identity may depend on it. */
  touchOwners(): void {
    this.#isOwnersTouched = true;
  }

  /** Keys touched since the last call; an object may have been deleted since. */
  takeTouched(): ReadonlySet<string> {
    // Once for all changes since the last call: the user who creates and deletes bindings decides
    // how many share a selector.
    for (const selector of this.#touchedSelectors) {
      for (const binding of this.#bindingsBySelector.of(selector)) {
        this.touch(workKey('binding', binding));
      }
    }
    this.#touchedSelectors.clear();
    if (this.#isOwnersTouched) this.touchAll('identity');
    this.#isOwnersTouched = false;
    const touched = this.#touched;
    this.#touched = new Set();
    return touched;
  }

  /** More bindings have its selector than are used, and it is not among the oldest. */
  isSurplus(binding: Binding): boolean {
    const key = objectKey(binding.namespace, binding.selector);
    const counting = this.#counting.get(key) ?? this.#count(key);
    return counting !== undefined && !counting.has(binding.uid);
  }

  /** An identity of the namespace with nearly that name. */
  nearIdentity(namespace: string, wanted: string): string | undefined {
    return nearestIn(namespace, wanted, this.identities.all(), ({ name }) => name);
  }

  #count(key: string): ReadonlySet<string> | undefined {
    const all = [...this.#bindingsBySelector.of(key)];
    if (all.length <= maxBindingsOfLabel) return undefined;
    const counting = new Set(oldest(all, maxBindingsOfLabel).map(({ uid }) => uid));
    this.#counting.set(key, counting);
    return counting;
  }

  #identityChanged(identity: Observed<Identity> | undefined, exists: boolean): void {
    if (identity === undefined) return;
    if (exists) this.touch(workKey('identity', identity));
    const key = objectKey(identity.namespace, identity.name);
    for (const binding of this.#bindingsByIdentity.of(key)) this.touch(workKey('binding', binding));
  }

  #bindingChanged(before: Observed<Binding> | undefined, after: Observed<Binding> | undefined) {
    if (after !== undefined) this.touch(workKey('binding', after));
    const filed = before === undefined ? undefined : this.#filed.get(before.uid);
    const next = after?.parsed.ok === true ? after.parsed.value : undefined;
    // Nearly always only its conditions have changed, by our own write.
    if (filed !== undefined && next !== undefined && isSameObject(filed, next)) return;
    if (filed !== undefined) {
      this.#filed.delete(filed.uid);
      this.#bindingsByIdentity.delete(identityKeyOf(filed), filed);
      this.#bindingsBySelector.delete(this.#touchSelector(filed), filed);
    }
    if (next === undefined) return;
    this.#filed.set(next.uid, next);
    this.#bindingsByIdentity.add(identityKeyOf(next), next);
    this.#bindingsBySelector.add(this.#touchSelector(next), next);
  }

  /**
   * Before a binding is filed or removed. Returns the key of its selector. If the selector has too
   * many bindings before or after, other ones may count now: a new one can be among the oldest, as
   * equally old ones count by name.
   */
  #touchSelector({ namespace, selector }: Binding): string {
    const key = objectKey(namespace, selector);
    this.#counting.delete(key);
    if (this.#bindingsBySelector.count(key) >= maxBindingsOfLabel) this.#touchedSelectors.add(key);
    return key;
  }
}

function identityKeyOf({ namespace, identityName }: Binding): string {
  return objectKey(namespace, identityName);
}
