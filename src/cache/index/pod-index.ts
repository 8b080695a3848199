/**
 * The pods of this node by address, name and uid.
 *
 * 1. Every address of a pod is a key, in canonical form. Host-network pods share the node's address
 *    and Succeeded or Failed pods no longer own theirs, so both are found by name and UID only.
 * 2. Two pods with the same address are both refused until one of them is deleted: a guess would
 *    give one pod the other's identity.
 * 3. One object per UID and one per name; a late delete event of a predecessor changes nothing.
 * 4. Every step is synchronous and complete before observers are notified.
 */
import { objectKey } from './object-name.ts';
import type { Clock } from '../../base/time/clock.ts';
import { bindingLabelOf } from './binding-label.ts';
import { canonicalIp } from './ip.ts';
import { isSameObject } from './object-store.ts';
import { Observers } from './observers.ts';
import { hasEnded, type ObjectRef, type ObjectStore, type Pod } from './objects.ts';

export type PodLookup =
  | { readonly kind: 'pod'; readonly pod: Pod }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'ambiguous'; readonly pods: readonly Pod[] };

export interface PodIndexStats {
  readonly pods: number;
  /** Addresses of at least one pod. */
  readonly ips: number;
  readonly ambiguousIps: number;
  readonly hostNetwork: number;
}

interface Entry {
  readonly pod: Pod;
  /** Result of a look-up by address, created once so that a look-up allocates nothing. */
  readonly lookup: PodLookup;
  readonly addresses: readonly string[];
  readonly labelledSinceWallMs: number;
}

interface Tables {
  readonly byName: Map<string, Entry>;
  readonly byUid: Map<string, Entry>;
  readonly byIp: Map<string, PodLookup>;
}

const unknown: PodLookup = { kind: 'unknown' };

export class PodIndex implements ObjectStore<Pod> {
  readonly #clock: Clock;
  readonly #observers: Observers<[readonly string[]]>;
  #tables = emptyTables();
  #generation = 0;

  constructor(clock: Clock, onObserverError?: (error: unknown) => void) {
    this.#clock = clock;
    this.#observers = new Observers(onObserverError);
  }

  /** Grows with every change that may alter any look-up. */
  get generation(): number {
    return this.#generation;
  }

  get size(): number {
    return this.#tables.byUid.size;
  }

  /** Replaces all pods. Pods that are equal to the stored ones keep their objects. */
  replace(items: readonly Pod[]): void {
    const next = emptyTables();
    for (const pod of items) store(next, this.#entryFor(pod));
    const uids = differences(this.#tables, next);
    if (uids.length === 0) return;
    this.#tables = next;
    this.#changed(uids);
  }

  upsert(pod: Pod): void {
    const entry = this.#entryFor(pod);
    if (this.#tables.byUid.get(pod.uid) === entry) return;
    const displaced = this.#tables.byName.get(objectKey(pod.namespace, pod.name))?.pod.uid;
    store(this.#tables, entry);
    this.#changed(
      displaced === undefined || displaced === pod.uid ? [pod.uid] : [displaced, pod.uid],
    );
  }

  remove(ref: ObjectRef): void {
    const entry = this.#tables.byName.get(objectKey(ref.namespace, ref.name));
    if (entry === undefined || entry.pod.uid !== ref.uid) return;
    drop(this.#tables, entry);
    this.#changed([ref.uid]);
  }

  /** The pod of an address in `canonicalIp` form. O(1), without allocation. */
  byIp(ip: string): PodLookup {
    return this.#tables.byIp.get(ip) ?? unknown;
  }

  /** The pod of that name, in any phase. */
  byName(namespace: string, name: string): Pod | undefined {
    return this.#tables.byName.get(objectKey(namespace, name))?.pod;
  }

  /** The pod of that UID, in any phase. */
  byUid(uid: string): Pod | undefined {
    return this.#tables.byUid.get(uid)?.pod;
  }

  /** Every stored pod once, in no particular order. */
  *all(): Iterable<Pod> {
    for (const entry of this.#tables.byUid.values()) yield entry.pod;
  }

  /**
   * Wall milliseconds at which the pod got its current binding label: its creation if the label
   * never changed, else the arrival of the change. 0 for a pod that is not stored.
   */
  labelledSinceWallMs(uid: string): number {
    return this.#tables.byUid.get(uid)?.labelledSinceWallMs ?? 0;
  }

  /** Counts at each call: O(pods). */
  get stats(): PodIndexStats {
    const { byUid, byIp } = this.#tables;
    let [ambiguousIps, hostNetwork] = [0, 0];
    for (const lookup of byIp.values()) if (lookup.kind === 'ambiguous') ambiguousIps++;
    for (const { pod } of byUid.values()) if (pod.hostNetwork) hostNetwork++;
    return { pods: byUid.size, ips: byIp.size, ambiguousIps, hostNetwork };
  }

  /**
   * Calls `observer` once after each replace, upsert or remove that changed something and is
   * complete, with the UIDs of the pods that were added, changed or deleted, each once. The
   * returned function unsubscribes.
   */
  onChange(observer: (uids: readonly string[]) => void): () => void {
    return this.#observers.add(observer);
  }

  /** The stored entry if its pod is equal, else a new entry. */
  #entryFor(pod: Pod): Entry {
    const stored = this.#tables.byUid.get(pod.uid);
    if (stored === undefined) return createEntry(pod, pod.createdAtWallMs);
    if (isSameObject(stored.pod, pod)) return stored;
    const keepsLabel = bindingLabelOf(stored.pod) === bindingLabelOf(pod);
    return createEntry(pod, keepsLabel ? stored.labelledSinceWallMs : this.#clock.wallMs());
  }

  #changed(uids: readonly string[]): void {
    this.#generation++;
    this.#observers.notify(uids);
  }
}

function emptyTables(): Tables {
  return { byName: new Map(), byUid: new Map(), byIp: new Map() };
}

function createEntry(pod: Pod, labelledSinceWallMs: number): Entry {
  return { pod, lookup: { kind: 'pod', pod }, addresses: ownedAddresses(pod), labelledSinceWallMs };
}

function ownedAddresses(pod: Pod): readonly string[] {
  if (pod.hostNetwork || hasEnded(pod)) return [];
  const addresses = new Set<string>();
  for (const text of pod.ips) {
    const ip = canonicalIp(text);
    if (ip !== undefined) addresses.add(ip);
  }
  return [...addresses];
}

/** UIDs whose entry was added, changed or deleted. */
function differences(before: Tables, after: Tables): readonly string[] {
  const uids: string[] = [];
  for (const uid of before.byUid.keys()) if (!after.byUid.has(uid)) uids.push(uid);
  for (const [uid, entry] of after.byUid) if (before.byUid.get(uid) !== entry) uids.push(uid);
  return uids;
}

/**
 * Overwrites existing keys instead of deleting and adding them: V8 rehashes a map after a few
 * hundred deletions, which makes that event slow.
 */
function store(tables: Tables, entry: Entry): void {
  const { pod, addresses } = entry;
  const key = objectKey(pod.namespace, pod.name);
  const sameName = tables.byName.get(key);
  if (sameName !== undefined && sameName.pod.uid !== pod.uid) drop(tables, sameName);
  const before = tables.byUid.get(pod.uid);
  if (before !== undefined) {
    const keyBefore = objectKey(before.pod.namespace, before.pod.name);
    if (keyBefore !== key) tables.byName.delete(keyBefore);
    for (const ip of before.addresses) if (!addresses.includes(ip)) leave(tables, ip, before.pod);
  }
  tables.byName.set(key, entry);
  tables.byUid.set(pod.uid, entry);
  for (const ip of addresses) {
    const others = podsOf(tables.byIp.get(ip) ?? unknown).filter((other) => other !== before?.pod);
    tables.byIp.set(ip, others.length === 0 ? entry.lookup : withPod(others, pod));
  }
}

function drop(tables: Tables, entry: Entry): void {
  const { pod } = entry;
  tables.byName.delete(objectKey(pod.namespace, pod.name));
  tables.byUid.delete(pod.uid);
  for (const ip of entry.addresses) leave(tables, ip, pod);
}

function leave(tables: Tables, ip: string, pod: Pod): void {
  const rest = podsOf(tables.byIp.get(ip) ?? unknown).filter((other) => other !== pod);
  const [only] = rest;
  if (only === undefined) tables.byIp.delete(ip);
  else if (rest.length > 1) tables.byIp.set(ip, { kind: 'ambiguous', pods: rest });
  else tables.byIp.set(ip, tables.byUid.get(only.uid)?.lookup ?? { kind: 'pod', pod: only });
}

function withPod(others: readonly Pod[], pod: Pod): PodLookup {
  return { kind: 'ambiguous', pods: [...others, pod].toSorted(byNameOrder) };
}

function podsOf(lookup: PodLookup): readonly Pod[] {
  if (lookup.kind === 'unknown') return [];
  return lookup.kind === 'pod' ? [lookup.pod] : lookup.pods;
}

function byNameOrder(a: Pod, b: Pod): number {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1;
  // No mutation: sorting only depends on whether the result is negative.
  return a.name < b.name ? -1 : 1;
}
