/** Identities and bindings with their conditions, and what another one's change affects. Pure. */
import { maxBindingsOfLabel, oldest } from '../../cache/index/grant-index.ts';
import { objectKey, type ObjectName } from '../../cache/index/object-name.ts';
import { isSameObject, MemoryObjectStore } from '../../cache/index/object-store.ts';
import type { Binding, Identity, StoredObject } from '../../cache/index/objects.ts';
import { nearestIn } from '../grants/near-names.ts';
import type { Observed } from './observed.ts';

export const groupPath = '/apis/aadpodidentity.k8s.io/v1';

export const kinds = {
  identity: { title: 'AzureIdentity', plural: 'azureidentities' },
  binding: { title: 'AzureIdentityBinding', plural: 'azureidentitybindings' },
} as const;

export type ObservedKind = keyof typeof kinds;

export function workKey(kind: ObservedKind, { namespace, name }: ObjectName): string {
  return `${kind}/${objectKey(namespace, name)}`;
}

export function parseWorkKey(key: string): ObjectName & { readonly kind: ObservedKind } {
  const [kind, namespace = '', name = ''] = key.split('/');
  return { kind: kind === 'identity' ? 'identity' : 'binding', namespace, name };
}

export class ObservedObjects {
  readonly identities = new MemoryObjectStore<Observed<Identity>>({
    changed: (before, after) => this.#changed('identity', before, after),
    settled: () => undefined,
  });
  readonly bindings = new MemoryObjectStore<Observed<Binding>>({
    changed: (before, after) => this.#changed('binding', before, after),
    settled: () => undefined,
  });
  #touched = new Set<string>();
  readonly #touchedNamespaces = new Set<string>();
  #isAllTouched = false;
  /** Both are computed when they are needed after a change. */
  #surplus: ReadonlySet<string> | undefined;
  #identitiesIn: ReadonlyMap<string, readonly Observed<Identity>[]> | undefined;

  touch(key: string): void {
    this.#touched.add(key);
  }

  touchAll(): void {
    this.#isAllTouched = true;
  }

  /** Keys touched since the last call; an object may have been deleted since. */
  takeTouched(): ReadonlySet<string> {
    const touched = this.#touched;
    if (this.#isAllTouched || this.#touchedNamespaces.size > 0) {
      for (const object of this.identities.all()) this.#takeIfTouched('identity', object, touched);
      for (const object of this.bindings.all()) this.#takeIfTouched('binding', object, touched);
    }
    this.#isAllTouched = false;
    this.#touchedNamespaces.clear();
    this.#touched = new Set();
    return touched;
  }

  /** More bindings have its selector than are used, and it is not among the oldest. */
  isSurplus(binding: Binding): boolean {
    this.#surplus ??= surplusOf(this.bindings.all());
    return this.#surplus.has(binding.uid);
  }

  nearIdentity(namespace: string, wanted: string): string | undefined {
    this.#identitiesIn ??= Map.groupBy(this.identities.all(), (each) => each.namespace);
    const identities = this.#identitiesIn.get(namespace) ?? [];
    return nearestIn(namespace, wanted, identities, ({ name }) => name);
  }

  #takeIfTouched(kind: ObservedKind, object: ObjectName, touched: Set<string>): void {
    if (this.#isAllTouched || this.#touchedNamespaces.has(object.namespace)) {
      touched.add(workKey(kind, object));
    }
  }

  /** Nearly always only its conditions have changed, by our own write: no other depends on them. */
  #changed<T extends StoredObject>(
    kind: ObservedKind,
    before: Observed<T> | undefined,
    after: Observed<T> | undefined,
  ): void {
    if (after !== undefined) this.touch(workKey(kind, after));
    const [was, is] = [before?.parsed, after?.parsed];
    if (was?.ok === true && is?.ok === true && isSameObject(was.value, is.value)) return;
    this.#surplus = undefined;
    this.#identitiesIn = undefined;
    for (const each of [before, after]) if (each) this.#touchedNamespaces.add(each.namespace);
  }
}

function surplusOf(bindings: Iterable<Observed<Binding>>): ReadonlySet<string> {
  const usable = [...bindings].flatMap(({ parsed }) => (parsed.ok ? [parsed.value] : []));
  const surplus = new Set<string>();
  const bySelector = Map.groupBy(usable, (each) => objectKey(each.namespace, each.selector));
  for (const all of bySelector.values()) {
    // No mutation: it only saves time, since all of at most so many count.
    if (all.length <= maxBindingsOfLabel) continue;
    const counting = new Set(oldest(all, maxBindingsOfLabel));
    for (const binding of all) if (!counting.has(binding)) surplus.add(binding.uid);
  }
  return surplus;
}
