/**
 * From a caller's cgroup to its pod, without walking the tree of all pods.
 *
 * The caller's address already says which pod it claims to be (a caller on the host network is one
 * of the node's few host-network pods), so only those pods' cgroups are looked at, once for each
 * new container; after that it is one look-up in a map. A cgroup that belongs to none of them is
 * nobody's: there is no second way to an identity.
 *
 * 1. Ids are never used again while the node is up, so an entry is true for ever and only bounded.
 * 2. An id that was not found below a pod is not looked for there again for a while: a new
 *    container's cgroup is there before its first process is, so waiting gives nothing, and a
 *    caller must not be able to make the agent search without end.
 * 3. A pod that makes many cgroups is searched once in a while, whichever of them call: each search
 *    takes milliseconds then, of the thread that serves all pods.
 */
import { listPodCgroups } from './cgroup-tree.ts';
import type { PodCgroup } from './cgroup.ts';

export interface CgroupIndexOptions {
  /** The folder of all pods, as `findPodsRoot` gives it; asked for at each search. */
  readonly podsRoot: () => string | undefined;
  /** Milliseconds that only grow. Default `performance.now`. */
  readonly nowMs?: () => number;
  /** Cgroups that are remembered, and misses. Default 16 384 each. */
  readonly maxEntries?: number;
}

/** How long a cgroup that a pod does not have is not looked for there again. */
const missPauseMs = 250;
/** Cgroups of a pod. Containers seldom make any. */
const many = 64;

export class CgroupIndex {
  readonly #podsRoot: () => string | undefined;
  readonly #nowMs: () => number;
  readonly #maxEntries: number;
  /** Both in the order of filing; the oldest goes first. */
  readonly #found = new Map<bigint, PodCgroup>();
  readonly #missedAtMs = new Map<string, number>();
  /** Pods with many cgroups, when they were searched. */
  readonly #searchedAtMs = new Map<string, number>();

  constructor(options: CgroupIndexOptions) {
    this.#podsRoot = options.podsRoot;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#maxEntries = options.maxEntries ?? 16_384;
  }

  get size(): number {
    return this.#found.size;
  }

  /**
   * The pod that a cgroup belongs to. Synchronous; a search costs about 0.1 ms for each candidate.
   * @param candidates UIDs, as the kubelet knows them, of the pods that it may be.
   * @returns undefined when it is none of them, also if it is another pod that is known already:
   *     the one whom a caller claims to be and the one it is must agree.
   */
  resolve(cgroupId: bigint, candidates: Iterable<string>): PodCgroup | undefined {
    const known = this.#found.get(cgroupId);
    for (const podUid of candidates) {
      if (known === undefined) this.#search(cgroupId, podUid);
      const pod = known ?? this.#found.get(cgroupId);
      if (pod?.podUid === podUid) return pod;
    }
    return undefined;
  }

  /** Files all cgroups of a pod, unless this one was missing there a moment ago. */
  #search(cgroupId: bigint, podUid: string): void {
    const miss = `${cgroupId} ${podUid}`;
    const searchedAtMs = this.#searchedAtMs.get(podUid) ?? this.#missedAtMs.get(miss);
    if (searchedAtMs !== undefined && this.#nowMs() - searchedAtMs < missPauseMs) return;
    const podsRoot = this.#podsRoot();
    const found = podsRoot === undefined ? [] : listPodCgroups(podsRoot, podUid);
    if (found.length > many) this.#searchedAtMs.set(podUid, this.#nowMs());
    else this.#searchedAtMs.delete(podUid);
    dropOldest(this.#searchedAtMs, this.#maxEntries);
    for (const cgroup of found) {
      this.#found.set(cgroup.id, { podUid: cgroup.podUid, containerId: cgroup.containerId });
    }
    dropOldest(this.#found, this.#maxEntries);
    this.#missedAtMs.delete(miss);
    if (this.#found.has(cgroupId)) return;
    this.#missedAtMs.set(miss, this.#nowMs());
    dropOldest(this.#missedAtMs, this.#maxEntries);
  }
}

function dropOldest<K>(map: Map<K, unknown>, maxEntries: number): void {
  for (const key of map.keys()) {
    if (map.size <= maxEntries) return;
    map.delete(key);
  }
}
