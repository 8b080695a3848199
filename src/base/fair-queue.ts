/**
 * A queue that serves namespaces in turn, the pods of a namespace in turn, and the entries of a pod
 * in order of arrival. A pod that queues a hundred entries delays another pod by one of them.
 *
 * An entry that several pods wait for is queued for each of them and leaves at the first of their
 * turns.
 */

/** The pod that a queued entry is charged to. */
export interface Party {
  readonly namespace: string;
  /** Unique among all pods. */
  readonly pod: string;
}

export interface Turn<T> {
  readonly entry: T;
  /** At whose turn it left. */
  readonly party: Party;
}

export class FairQueue<T> {
  /** By namespace, then by pod; map order is the order of turns. */
  readonly #lanes = new Map<string, Map<string, Set<T>>>();
  readonly #partiesOf = new Map<T, Party[]>();

  get size(): number {
    return this.#partiesOf.size;
  }

  add(entry: T, party: Party): void {
    const { namespace, pod } = party;
    const pods = this.#lanes.get(namespace) ?? new Map<string, Set<T>>();
    const lane = pods.get(pod) ?? new Set<T>();
    if (lane.has(entry)) return;
    this.#lanes.set(namespace, pods.set(pod, lane.add(entry)));
    const parties = this.#partiesOf.get(entry);
    if (parties === undefined) this.#partiesOf.set(entry, [party]);
    else parties.push(party);
  }

  /** Of one pod, including those that other pods wait for too. */
  sizeOf({ namespace, pod }: Party): number {
    return this.#lanes.get(namespace)?.get(pod)?.size ?? 0;
  }

  has(entry: T): boolean {
    return this.#partiesOf.has(entry);
  }

  delete(entry: T): boolean {
    const parties = this.#partiesOf.get(entry);
    if (parties === undefined) return false;
    this.#partiesOf.delete(entry);
    for (const { namespace, pod } of parties) {
      const pods = this.#lanes.get(namespace);
      const lane = pods?.get(pod);
      lane?.delete(entry);
      if (lane?.size === 0) pods?.delete(pod);
      if (pods?.size === 0) this.#lanes.delete(namespace);
    }
    return true;
  }

  shift(): T | undefined {
    return this.take(() => true)?.entry;
  }

  /** Removes the next entry of the parties that may be served; the others keep their turn. */
  take(mayServe: (party: Party) => boolean): Turn<T> | undefined {
    for (const [namespace, pods] of this.#lanes) {
      for (const [pod, lane] of pods) {
        if (!mayServe({ namespace, pod })) continue;
        for (const entry of lane) {
          this.#lanes.delete(namespace);
          this.#lanes.set(namespace, pods);
          pods.delete(pod);
          pods.set(pod, lane);
          this.delete(entry);
          return { entry, party: { namespace, pod } };
        }
      }
    }
    return undefined;
  }

  clear(): void {
    this.#lanes.clear();
    this.#partiesOf.clear();
  }
}
