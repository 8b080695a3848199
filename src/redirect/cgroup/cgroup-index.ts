/**
 * Finds the pod of a cgroup. The source address determines the candidates: one pod, or the node's few
 * host-network pods. A cgroup of none of them gets no identity.
 *
 * The kernel does not reuse ids until a reboot, so an entry never becomes wrong and is only bounded. For a
 * cgroup that a candidate does not have, it is not looked at again for `missPauseMs`: a pod's cgroup exists before
 * its first process, and a caller must not be able to cause unlimited calls of the kernel.
 */
import { dropOldest } from '../../base/drop-oldest.ts';
import type { Clock } from '../../base/time/clock.ts';
import { podCgroupId } from './cgroup-tree.ts';

const missPauseMs = 250;

export class CgroupIndex {
  readonly #podsRoot: () => string | undefined;
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Of each map; the oldest entry is evicted first. */
  readonly #maxEntries: number;
  /** UIDs of pods by cgroup. */
  readonly #found = new Map<bigint, string>();
  readonly #missedAtMs = new Map<string, number>();

  /** @param podsRoot the folder of all pods, as returned by `findPodsRoot`; called for each search. */
  constructor(
    podsRoot: () => string | undefined,
    clock: Pick<Clock, 'monotonicMs'>,
    maxEntries = 16_384,
  ) {
    this.#podsRoot = podsRoot;
    this.#clock = clock;
    this.#maxEntries = maxEntries;
  }

  /**
   * The UID of the pod that has a cgroup. Synchronous; up to three calls of the kernel for each candidate.
   * @param candidates cgroup UIDs of the pods that the source address allows.
   * @returns undefined if it is the cgroup of none of them, even if it is that of another known pod:
   *     source address and cgroup must identify the same pod.
   */
  resolve(cgroupId: bigint, candidates: readonly string[]): string | undefined {
    const known = this.#found.get(cgroupId);
    return candidates.find((podUid) =>
      known === undefined ? this.#hasCgroup(podUid, cgroupId) : known === podUid,
    );
  }

  #hasCgroup(podUid: string, cgroupId: bigint): boolean {
    const miss = `${cgroupId} ${podUid}`;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - (this.#missedAtMs.get(miss) ?? -Infinity) < missPauseMs) return false;
    this.#missedAtMs.delete(miss);
    const podsRoot = this.#podsRoot();
    const own = podsRoot === undefined ? undefined : podCgroupId(podsRoot, podUid);
    if (own !== undefined) this.#found.set(own, podUid);
    if (own !== cgroupId) this.#missedAtMs.set(miss, nowMs);
    dropOldest(this.#found, this.#maxEntries);
    dropOldest(this.#missedAtMs, this.#maxEntries);
    return own === cgroupId;
  }
}
