/**
 * The identities that each pod of this node may use. The index is computed when an object changes,
 * never during a request.
 *
 * 1. Everything is within one namespace: pod, binding, identity and exception.
 * 2. A pod's binding label equals the selector of a binding byte for byte. An absent or empty label
 *    matches nothing, and an empty selector matches nothing: otherwise one careless binding would
 *    give its identity to every pod without the label.
 *    A binding that names a service account applies only to pods of that service account.
 * 3. An exception matches a pod by any one of its labels (the key exactly, the value
 *    case-insensitively) and takes precedence over bindings. An exception without labels matches
 *    nothing.
 *    Only the 200 oldest bindings of a label count, as in the replaced system: namespace users
 *    decide how many bindings exist.
 * 4. Several matches are sorted, identities by creation time and then name, other objects by name,
 *    never by order of arrival.
 *
 * Pods with the same namespace and label value form one label group, divided by service account if
 * a binding names one. A change of a binding or identity recomputes one group and its pods only.
 */
import { objectKey } from './object-name.ts';
import { MemoryObjectStore } from './object-store.ts';
import { bindingLabelOf, isForAccountOf } from './binding-label.ts';
import { Multimap } from './multimap.ts';
import { normaliseClientId, normaliseResourceId } from './identifiers.ts';
import { Observers } from './observers.ts';
import { exceptionKeys, isExcepted } from './excepted-labels.ts';
import type { Binding, Exception, Identity, ObjectStore, Pod } from './objects.ts';
import type { PodIndex } from './pod-index.ts';

/** A pod with at least one identity. */
export interface BoundGrants {
  readonly kind: 'bound';
  readonly label: string;
  /** Never empty; oldest creation first, then by name. */
  readonly identities: readonly Identity[];
  /** By `normaliseClientId`; on duplicates the first of `identities`. No empty key. */
  readonly byClientId: ReadonlyMap<string, Identity>;
  /** By `normaliseResourceId`; on duplicates the first of `identities`. No empty key. */
  readonly byResourceId: ReadonlyMap<string, Identity>;
  /** Bindings whose identity exists, by name. */
  readonly bindings: readonly Binding[];
  /** Matching bindings whose identity does not exist, by name. */
  readonly danglingBindings: readonly Binding[];
}

export type PodGrants =
  | { readonly kind: 'exception'; readonly exception: Exception }
  | BoundGrants
  | { readonly kind: 'no-label' }
  | {
      readonly kind: 'no-binding';
      readonly label: string;
      /** Bindings that match the label but name another service account, by name. */
      readonly bindingsForOtherAccounts: readonly Binding[];
      /** The later of the pod's creation and the time it got the label. */
      readonly sinceWallMs: number;
    }
  | {
      readonly kind: 'no-identity';
      readonly label: string;
      /** Never empty; by name. None of their identities exists. */
      readonly bindings: readonly Binding[];
      /** The latest of the pod's creation, its label and the newest binding's creation. */
      readonly sinceWallMs: number;
    };

export interface GrantIndexStats {
  readonly identities: number;
  readonly bindings: number;
  readonly exceptions: number;
  readonly boundPods: number;
  /** Computed label groups of the stored pods, counted by service account where one is divided. */
  readonly labelGroups: number;
  /** How many times a pod's grants were computed since the start. */
  readonly recomputed: number;
}

interface PodEntry {
  pod: Pod;
  /** Key of the pod's label group; `undefined` when the label is absent or empty. */
  groupKey: string | undefined;
  grants: PodGrants;
}

/** The grants that all pods of a label group and service account share. */
type GroupGrants =
  | BoundGrants
  | { readonly kind: 'unbound'; readonly bindingsForOtherAccounts: readonly Binding[] }
  | {
      readonly kind: 'dangling';
      readonly bindings: readonly Binding[];
      readonly newestBindingWallMs: number;
    };

const noLabel: PodGrants = { kind: 'no-label' };
/** Most bindings of one label in one namespace that count. */
export const maxBindingsOfLabel = 200;
const unbound: GroupGrants = { kind: 'unbound', bindingsForOtherAccounts: [] };

/** The bindings of one namespace and label value. */
interface LabelGroup {
  readonly key: string;
  /** Bindings that match the label and count, by name. */
  readonly matching: readonly Binding[];
  /** Of the bindings that count, if there may be more: younger ones do not count. */
  readonly youngest: Binding | undefined;
  /** By service account; under the empty name if no binding names a service account. */
  readonly byAccount: Map<string, GroupGrants>;
  readonly namesAccount: boolean;
}

export class GrantIndex {
  readonly #pods: PodIndex;
  readonly #observers: Observers;

  readonly #entries = new Map<string, PodEntry>();
  readonly #entriesByGroup = new Multimap<PodEntry>();
  readonly #entriesByNamespace = new Multimap<PodEntry>();
  readonly #bindingsByGroup = new Multimap<Binding>();
  /** By each identity that a binding that counts names. */
  readonly #groupsByIdentity = new Multimap<LabelGroup>();
  readonly #exceptionsByLabel = new Multimap<Exception>();
  /** Computed on first use, deleted when a binding that counts changes. */
  readonly #groups = new Map<string, LabelGroup>();
  readonly #touched = new Set<PodEntry>();

  readonly #bindings = new MemoryObjectStore<Binding>({
    changed: (before, after) => this.#bindingChanged(before, after),
    settled: () => this.#settle('grants'),
  });
  readonly #identities = new MemoryObjectStore<Identity>({
    changed: (before, after) => this.#identityChanged(before, after),
    settled: () => this.#settle('grants'),
  });
  readonly #exceptions = new MemoryObjectStore<Exception>({
    changed: (before, after) => this.#exceptionChanged(before, after),
    settled: () => this.#settle('grants'),
  });

  #generation = 0;
  #recomputed = 0;

  /** Observes `pods`. Code that depends on pods and grants observes this index only. */
  constructor(pods: PodIndex, onObserverError?: (error: unknown) => void) {
    this.#pods = pods;
    this.#observers = new Observers(onObserverError);
    this.#podsChanged([...pods.all()].map(({ uid }) => uid));
    pods.onChange((uids) => this.#podsChanged(uids));
  }

  get bindings(): ObjectStore<Binding> {
    return this.#bindings;
  }

  get identities(): ObjectStore<Identity> {
    return this.#identities;
  }

  get exceptions(): ObjectStore<Exception> {
    return this.#exceptions;
  }

  /** Grows with every change of a pod or of any pod's grants. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * The grants of a pod, or `undefined` when no such pod is stored. O(1), without allocation;
   * returns the same object until the pod's grants change.
   */
  grantsOf(podUid: string): PodGrants | undefined {
    return this.#entries.get(podUid)?.grants;
  }

  /** How many bindings of the label do not count. */
  surplusBindings(namespace: string, label: string): number {
    const count = this.#bindingsByGroup.count(objectKey(namespace, label));
    return Math.max(0, count - maxBindingsOfLabel);
  }

  /** Every binding of the cluster, for hints about bindings that nearly match. */
  allBindings(): Iterable<Binding> {
    return this.#bindings.all();
  }

  allIdentities(): Iterable<Identity> {
    return this.#identities.all();
  }

  /**
   * Calls `observer` once after each step that changed a pod (its address included) or any pod's
   * grants, after both indexes were updated. The returned function unsubscribes.
   */
  onChange(observer: () => void): () => void {
    return this.#observers.add(observer);
  }

  /** Counts at each call: O(pods). */
  get stats(): GrantIndexStats {
    let boundPods = 0;
    for (const { grants } of this.#entries.values()) if (grants.kind === 'bound') boundPods++;
    let labelGroups = 0;
    for (const { byAccount } of this.#groups.values()) labelGroups += byAccount.size;
    return {
      identities: this.#identities.size,
      bindings: this.#bindings.size,
      exceptions: this.#exceptions.size,
      boundPods,
      labelGroups,
      recomputed: this.#recomputed,
    };
  }

  /** Visits only these pods: a node has hundreds of pods, and nearly every event changes one. */
  #podsChanged(uids: readonly string[]): void {
    for (const uid of uids) {
      const entry = this.#entries.get(uid);
      if (entry === undefined || this.#pods.byUid(uid) !== undefined) continue;
      this.#entries.delete(uid);
      this.#detach(entry);
    }
    for (const uid of uids) {
      const pod = this.#pods.byUid(uid);
      const previous = this.#entries.get(uid);
      if (pod === undefined || previous?.pod === pod) continue;
      if (previous?.pod.namespace === pod.namespace) {
        this.#update(previous, pod);
        continue;
      }
      if (previous !== undefined) this.#detach(previous);
      const grants = previous?.grants ?? noLabel;
      const entry = { pod, groupKey: groupKeyOf(pod), grants };
      this.#entries.set(uid, entry);
      this.#attach(entry);
    }
    this.#settle('pods');
  }

  /** The namespace is unchanged, so only the label group and the service account may change. */
  #update(entry: PodEntry, pod: Pod): void {
    const groupKey = groupKeyOf(pod);
    this.#touched.add(entry);
    const stays = groupKey === entry.groupKey && pod.serviceAccount === entry.pod.serviceAccount;
    if (!stays) this.#leaveGroup(entry);
    entry.pod = pod;
    entry.groupKey = groupKey;
    if (!stays && groupKey !== undefined) this.#entriesByGroup.add(groupKey, entry);
  }

  #attach(entry: PodEntry): void {
    this.#entriesByNamespace.add(entry.pod.namespace, entry);
    if (entry.groupKey !== undefined) this.#entriesByGroup.add(entry.groupKey, entry);
    this.#touched.add(entry);
  }

  #detach(entry: PodEntry): void {
    this.#entriesByNamespace.delete(entry.pod.namespace, entry);
    this.#leaveGroup(entry);
  }

  #leaveGroup(entry: PodEntry): void {
    const { groupKey, pod } = entry;
    if (groupKey === undefined) return;
    this.#entriesByGroup.delete(groupKey, entry);
    if (this.#entriesByGroup.count(groupKey) === 0) this.#dropGroup(groupKey);
    for (const other of this.#entriesByGroup.of(groupKey)) {
      if (other.pod.serviceAccount === pod.serviceAccount) return;
    }
    // Namespace users decide how many service accounts come and go.
    this.#groups.get(groupKey)?.byAccount.delete(pod.serviceAccount);
  }

  #bindingChanged(before: Binding | undefined, after: Binding | undefined): void {
    for (const binding of [before, after]) {
      if (binding === undefined || binding.selector === '') continue;
      const groupKey = objectKey(binding.namespace, binding.selector);
      this.#bindingsByGroup[binding === before ? 'delete' : 'add'](groupKey, binding);
      const group = this.#groups.get(groupKey);
      // No mutation: no two have the same name.
      const isSurplus = group?.youngest !== undefined && byAge(group.youngest, binding) < 0;
      if (!isSurplus) this.#dropGroup(groupKey);
    }
  }

  #identityChanged(before: Identity | undefined, after: Identity | undefined): void {
    const identity = after ?? before;
    if (identity === undefined) return;
    const key = objectKey(identity.namespace, identity.name);
    for (const group of this.#groupsByIdentity.of(key)) {
      group.byAccount.clear();
      for (const entry of this.#entriesByGroup.of(group.key)) this.#touched.add(entry);
    }
  }

  #exceptionChanged(before: Exception | undefined, after: Exception | undefined): void {
    for (const exception of [before, after]) {
      if (exception === undefined) continue;
      const change = exception === before ? 'delete' : 'add';
      const { namespace, podLabels } = exception;
      for (const key of exceptionKeys(namespace, podLabels)) {
        this.#exceptionsByLabel[change](key, exception);
      }
      for (const entry of this.#entriesByNamespace.of(namespace)) {
        if (isExcepted(entry.pod.labels, podLabels)) this.#touched.add(entry);
      }
    }
  }

  /** Where no group is stored, its pods are touched already, or excepted. */
  #dropGroup(groupKey: string): void {
    const group = this.#groups.get(groupKey);
    if (group === undefined) return;
    this.#groups.delete(groupKey);
    for (const key of identityKeys(group)) this.#groupsByIdentity.delete(key, group);
    for (const entry of this.#entriesByGroup.of(groupKey)) this.#touched.add(entry);
  }

  /**
   * Ends a step: recomputes all touched pods, then notifies, so that no observer sees half a step.
   */
  #settle(what: 'pods' | 'grants'): void {
    let changed = what === 'pods';
    for (const entry of this.#touched) {
      const grants = this.#compute(entry);
      this.#recomputed++;
      if (isSame(grants, entry.grants)) continue;
      entry.grants = grants;
      changed = true;
    }
    this.#touched.clear();
    if (!changed) return;
    this.#generation++;
    this.#observers.notify();
  }

  #compute({ pod, groupKey }: PodEntry): PodGrants {
    const exception = this.#exceptionFor(pod);
    if (exception !== undefined) return { kind: 'exception', exception };
    if (groupKey === undefined) return noLabel;

    const label = bindingLabelOf(pod) ?? '';
    const found = this.#grantsOfGroup(groupKey, pod, label);
    if (found.kind === 'bound') return found;
    const labelledWallMs = Math.max(pod.createdAtWallMs, this.#pods.labelledSinceWallMs(pod.uid));
    if (found.kind === 'unbound') {
      const { bindingsForOtherAccounts } = found;
      return { kind: 'no-binding', label, bindingsForOtherAccounts, sinceWallMs: labelledWallMs };
    }
    const sinceWallMs = Math.max(labelledWallMs, found.newestBindingWallMs);
    return { kind: 'no-identity', label, bindings: found.bindings, sinceWallMs };
  }

  #exceptionFor(pod: Pod): Exception | undefined {
    let chosen: Exception | undefined;
    for (const key of exceptionKeys(pod.namespace, pod.labels)) {
      for (const exception of this.#exceptionsByLabel.of(key)) {
        // No mutation: of the same name is the same one.
        if (chosen === undefined || exception.name < chosen.name) chosen = exception;
      }
    }
    return chosen;
  }

  #grantsOfGroup(groupKey: string, pod: Pod, label: string): GroupGrants {
    const group = this.#groups.get(groupKey) ?? this.#createGroup(groupKey);
    const account = group.namesAccount ? pod.serviceAccount : '';
    const known = group.byAccount.get(account);
    if (known !== undefined) return known;
    const found = this.#createGroupGrants(group, pod, label);
    group.byAccount.set(account, found);
    return found;
  }

  #createGroup(groupKey: string): LabelGroup {
    const matching = oldest(this.#bindingsByGroup.of(groupKey), maxBindingsOfLabel);
    const youngest = matching[maxBindingsOfLabel - 1];
    const namesAccount = matching.some(({ serviceAccount }) => serviceAccount !== '');
    matching.sort(byName);
    const byAccount = new Map<string, GroupGrants>();
    const group = { key: groupKey, matching, youngest, namesAccount, byAccount };
    this.#groups.set(groupKey, group);
    for (const key of identityKeys(group)) this.#groupsByIdentity.add(key, group);
    return group;
  }

  #createGroupGrants({ matching: ofLabel }: LabelGroup, pod: Pod, label: string): GroupGrants {
    const { namespace } = pod;
    const matching = ofLabel.filter((binding) => isForAccountOf(binding, pod));
    if (matching.length === 0) {
      return ofLabel.length === 0
        ? unbound
        : { kind: 'unbound', bindingsForOtherAccounts: ofLabel };
    }

    const identities = new Set<Identity>();
    const bindings: Binding[] = [];
    const danglingBindings: Binding[] = [];
    for (const binding of matching) {
      const identity = this.#identities.get(namespace, binding.identityName);
      if (identity !== undefined) identities.add(identity);
      (identity === undefined ? danglingBindings : bindings).push(binding);
    }
    if (identities.size > 0) {
      return createBound(label, [...identities].sort(byAge), bindings, danglingBindings);
    }
    let newestBindingWallMs = 0;
    for (const { createdAtWallMs } of matching) {
      newestBindingWallMs = Math.max(newestBindingWallMs, createdAtWallMs);
    }
    return { kind: 'dangling', bindings: matching, newestBindingWallMs };
  }
}

function groupKeyOf(pod: Pod): string | undefined {
  const label = bindingLabelOf(pod) ?? '';
  return label === '' ? undefined : objectKey(pod.namespace, label);
}

function identityKeys({ matching }: LabelGroup): readonly string[] {
  return matching.map(({ namespace, identityName }) => objectKey(namespace, identityName));
}

function createBound(
  label: string,
  identities: readonly Identity[],
  bindings: readonly Binding[],
  danglingBindings: readonly Binding[],
): BoundGrants {
  const byClientId = new Map<string, Identity>();
  const byResourceId = new Map<string, Identity>();
  for (const identity of identities) {
    setFirst(byClientId, normaliseClientId(identity.clientId), identity);
    setFirst(byResourceId, normaliseResourceId(identity.resourceId), identity);
  }
  return { kind: 'bound', label, identities, byClientId, byResourceId, bindings, danglingBindings };
}

function setFirst(map: Map<string, Identity>, key: string, identity: Identity): void {
  if (key !== '' && !map.has(key)) map.set(key, identity);
}

/**
 * A binding of another service account recomputes the group without changing this pod's grants. The
 * maps follow from the list of identities.
 */
function isSame(a: PodGrants, b: PodGrants): boolean {
  if (a === b) return true;
  if (a.kind !== b.kind) return false;
  const others: Readonly<Record<string, unknown>> = { ...b };
  return Object.entries(a).every(([name, value]: [string, unknown]) => {
    const other = others[name];
    if (Array.isArray(value)) return Array.isArray(other) && areSame(value, other);
    return value === other || value instanceof Map;
  });
}

function areSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a === b || (a.length === b.length && a.every((each, index) => each === b[index]));
}

/**
 * Compares code units, so that the order does not depend on the node's locale. Names are unique: the
 * objects are of one kind and namespace.
 */
function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

interface Aged {
  readonly name: string;
  readonly createdAtWallMs: number;
}

function byAge(a: Aged, b: Aged): number {
  return a.createdAtWallMs - b.createdAtWallMs || byName(a, b);
}

/**
 * The `count` oldest, oldest first. Without sorting all: namespace users decide how many
 * bindings exist, and in which order the API server lists them.
 */
export function oldest<T extends Aged>(all: Iterable<T>, count: number): T[] {
  let chosen: T[] = [];
  let youngest: T | undefined;
  for (const each of all) {
    // No mutation: no two have the same name.
    if (youngest !== undefined && byAge(youngest, each) < 0) continue;
    if (chosen.push(each) < 2 * count) continue;
    chosen = chosen.sort(byAge).slice(0, count);
    youngest = chosen.at(-1);
  }
  return chosen.sort(byAge).slice(0, count);
}
