/**
 * Finds the pod of a caller's cgroup, without walking the tree of all pods.
 *
 * The source address determines the candidates: one pod, or the node's few host-network pods. Only
 * their cgroups are searched, once per new container; later it is one look-up in a map. A cgroup
 * outside all candidates gets no identity.
 *
 * 1. The kernel does not reuse ids until a reboot, so an entry never becomes wrong and is only bounded.
 * 2. An id that was not found below a pod is not searched there again for `missPauseMs`. A container's
 *    cgroup exists before its first process, so a repeated search finds nothing new, and a caller must
 *    not be able to cause unlimited searches.
 * 3. A pod with many cgroups is searched at most once per pause, whichever cgroup calls: such a search
 *    blocks the thread that serves all pods for milliseconds.
 */
import { dropOldest } from '../../base/drop-oldest.ts';
import { listPodCgroups } from './cgroup-tree.ts';

export interface CgroupIndexOptions {
  /** The folder of all pods, as returned by `findPodsRoot`; called for each search. */
  readonly podsRoot: () => string | undefined;
  /** Monotonic milliseconds. Default `performance.now`. */
  readonly nowMs?: () => number;
  /** Most cached cgroups, and most cached misses. Default 16 384 each. */
  readonly maxEntries?: number;
}

/** Pause before a cgroup is searched again below a pod that did not contain it. */
const missPauseMs = 250;
/** A pod with more cgroups than this has many. Containers rarely create cgroups. */
const many = 64;

export class CgroupIndex {
  readonly #podsRoot: () => string | undefined;
  readonly #nowMs: () => number;
  readonly #maxEntries: number;
  /** UIDs of pods. In order of insertion, like the misses; the oldest is evicted first. */
  readonly #found = new Map<bigint, string>();
  readonly #missedAtMs = new Map<string, number>();
  /** Time of the last search, for pods with many cgroups. */
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
   * The UID of the pod that a cgroup belongs to. Synchronous; a search costs about 0.1 ms for each candidate.
   * @param candidates cgroup UIDs of the pods that the source address allows.
   * @returns undefined if the cgroup belongs to none of them, even if it belongs to another known pod:
   *     source address and cgroup must identify the same pod.
   */
  resolve(cgroupId: bigint, candidates: Iterable<string>): string | undefined {
    const known = this.#found.get(cgroupId);
    for (const podUid of candidates) {
      if (known === undefined) this.#search(cgroupId, podUid);
      if ((known ?? this.#found.get(cgroupId)) === podUid) return podUid;
    }
    return undefined;
  }

  /** Adds all cgroups of a pod, unless a recent search did not find this one there. */
  #search(cgroupId: bigint, podUid: string): void {
    const miss = `${cgroupId} ${podUid}`;
    const searchedAtMs = this.#searchedAtMs.get(podUid) ?? this.#missedAtMs.get(miss);
    if (searchedAtMs !== undefined && this.#nowMs() - searchedAtMs < missPauseMs) return;
    const podsRoot = this.#podsRoot();
    const found = podsRoot === undefined ? [] : listPodCgroups(podsRoot, podUid);
    if (found.length > many) this.#searchedAtMs.set(podUid, this.#nowMs());
    else this.#searchedAtMs.delete(podUid);
    dropOldest(this.#searchedAtMs, this.#maxEntries);
    for (const id of found) this.#found.set(id, podUid);
    dropOldest(this.#found, this.#maxEntries);
    this.#missedAtMs.delete(miss);
    if (this.#found.has(cgroupId)) return;
    this.#missedAtMs.set(miss, this.#nowMs());
    dropOldest(this.#missedAtMs, this.#maxEntries);
  }
}
