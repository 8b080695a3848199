/**
 * Identifies the pod that opened a connection, from what the kernel reports about the socket and
 * never from a header.
 *
 * 1. By address: the pod that has the source address, if the connection comes from that pod's
 *    place.
 * 2. Attested: the pod of the caller's cgroup, if it has the source address, too. On the host
 *    network the address is the node's and identifies no pod; there the cgroup alone does. A cgroup
 *    that does not belong to the pod of the address may be that of a new pod that is not known yet;
 *    until then the caller is unknown. A static pod chooses the name of its cgroup itself, so a pod
 *    that has this name as its uid takes precedence.
 * 3. By link, without a record: as by address, and the link must belong to this pod alone. The same
 *    for a direct connect that another pod's process made, as a proxy does for the pods of a node. A
 *    record of another pod's connect to the metadata address is never overruled.
 *
 * A connection belongs to the pod that opened it as long as it exists: to the pod that had the
 * address then or, if none was known yet, the first that was known to have it. If the address has
 * passed to another pod since, the socket is still in the first pod's network namespace: such a
 * connection is closed, and no token of either pod is sent on it.
 */
import { canonicalIp } from '../../cache/index/ip.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { Party } from '../../base/fair-queue.ts';
import type { Attestation, Place } from '../../redirect/redirect.ts';
import type { PodPlaces } from './place.ts';

export type Caller =
  | { readonly kind: 'pod'; readonly pod: Pod }
  | { readonly kind: 'unknown' }
  /** The record names a cgroup that is not that of the pod with the address. */
  | { readonly kind: 'other-cgroup' }
  | { readonly kind: 'ambiguous'; readonly pods: readonly Pod[] }
  | { readonly kind: 'outlived' }
  /** The pod of the address is at another place. */
  | { readonly kind: 'misplaced' }
  | Extract<Attestation, { kind: 'unattested' | 'unavailable' }>;

/** What identified a pod: the record of its connect, its address, or its address and its own link. */
export type IdentifiedBy = 'cgroup' | 'address' | 'link';

/** Finds the pod of a cgroup among these, by the names that the kubelet gives their cgroups. */
export type FindCgroupUid = (cgroupId: bigint, candidates: readonly string[]) => string | undefined;

export interface CallerEnd {
  /** Empty when the kernel gave none. */
  readonly remoteIp: string;
  readonly localIp?: string;
}

const unknown: Caller = { kind: 'unknown' };
const otherCgroup: Caller = { kind: 'other-cgroup' };
const outlived: Caller = { kind: 'outlived' };
const misplaced: Caller = { kind: 'misplaced' };
const onSharedLink: Caller = { kind: 'unattested', refusedBy: 'shared-link' };

/** Before the first look-up. */
const evidence = {
  attested: 'cgroup',
  'by-address': 'address',
  'by-link': 'link',
  unattested: undefined,
  unavailable: undefined,
} as const satisfies Record<Attestation['kind'], IdentifiedBy | undefined>;

interface Found {
  readonly caller: Caller;
  readonly by?: IdentifiedBy;
  /** Where the pod must be. */
  readonly place?: Place | 'unknown' | undefined;
}

/** For modes that attest nothing. */
const noCgroups: FindCgroupUid = () => undefined;

/** The key of a pod in limits. */
export function limitKeyOf({ uid }: Pod): string {
  return `pod ${uid}`;
}

/** The pod of a limit key; undefined if it is deleted, or if the key is not that of a pod. */
export function podOfLimitKey(limitKey: string, pods: PodIndex): Pod | undefined {
  return limitKey.startsWith('pod ') ? pods.byUid(limitKey.slice('pod '.length)) : undefined;
}

/** The party of a pod in a fair queue. */
export function partyOf(pod: Pod): Party {
  return { namespace: pod.namespace, pod: limitKeyOf(pod) };
}

function isOnLoopback(ip: string): boolean {
  return ip.startsWith('127.');
}

/** The state of one accepted connection; lives as long as its socket. */
export class CallerConnection {
  /** Canonical address of the peer; empty when the kernel gave none (the peer has disconnected). */
  readonly ip: string;
  /** Both ends have one address: the peer is a process on the node's own network. */
  readonly #isLocal: boolean;
  readonly attestation: Attestation;
  readonly #findCgroupUid: FindCgroupUid;
  #ownerUid: string | undefined;
  #limitKey: string;
  #generation = -1;
  #caller: Caller = unknown;
  #identifiedBy: IdentifiedBy | undefined;

  constructor(end: CallerEnd, attestation: Attestation, findCgroupUid: FindCgroupUid = noCgroups) {
    this.ip = canonicalIp(end.remoteIp) ?? '';
    const isLoopback = isOnLoopback(this.ip);
    // Needed for attested and local callers only, and costs a system call for a socket.
    const isAsked = attestation.kind === 'attested' || isLoopback;
    const localAddress = isAsked ? canonicalIp(end.localIp ?? '') : undefined;
    this.#isLocal = localAddress === this.ip;
    this.attestation = attestation;
    this.#identifiedBy = evidence[attestation.kind];
    const isOfNode =
      this.#isLocal || (isLoopback && localAddress !== undefined && !isOnLoopback(localAddress));
    const nodeKey = attestation.kind === 'attested' ? `cgroup ${attestation.cgroupId}` : 'node';
    this.#limitKey = isOfNode ? nodeKey : this.ip;
    this.#findCgroupUid = findCgroupUid;
  }

  /**
   * The key of the caller in limits: its pod, once that is known. Before, all callers of one
   * address share limits. On the host network, where a process can choose among many addresses, all
   * of one cgroup share them, or all of the node if the cgroup is not known.
   */
  get limitKey(): string {
    return this.#limitKey;
  }

  /**
   * The caller by the current index; looked up again only when the index has changed, or while it
   * is misplaced, since a confirmed move of its pod ends that without a change of the index.
   * @param places absent if only the address is compared.
   */
  resolve(pods: PodIndex, places?: PodPlaces): Caller {
    if (this.#generation !== pods.generation || this.#caller === misplaced) {
      this.#generation = pods.generation;
      this.#caller = this.#lookUp(pods, places);
    }
    return this.#caller;
  }

  /** The evidence of who the latest caller is; undefined if there is none. */
  get identifiedBy(): IdentifiedBy | undefined {
    return this.#identifiedBy;
  }

  /** The pod that opened it does not exist any more. */
  hasOutlived(pods: PodIndex): boolean {
    return this.#ownerUid !== undefined && pods.byUid(this.#ownerUid) === undefined;
  }

  #lookUp(pods: PodIndex, places: PodPlaces | undefined): Caller {
    const { caller: found, by, place } = this.#find(pods);
    this.#identifiedBy = by;
    if (found.kind !== 'pod') return found;
    if (this.#ownerUid === undefined) {
      if (by === 'link' && places?.isAlone(found.pod, place) !== true) return onSharedLink;
      if (place !== undefined && places?.isOf(found.pod, this.ip, place) === false) {
        return misplaced;
      }
      this.#ownerUid = found.pod.uid;
      this.#limitKey = limitKeyOf(found.pod);
    }
    return found.pod.uid === this.#ownerUid ? found : outlived;
  }

  #find(pods: PodIndex): Found {
    const { attestation } = this;
    const { kind } = attestation;
    if (kind === 'unattested' || kind === 'unavailable') return { caller: attestation };
    if (kind === 'attested') {
      const caller = this.#findAttested(pods, attestation.cgroupId);
      const isRelayed = caller.kind === 'other-cgroup' && attestation.place !== undefined;
      if (!isRelayed) return { caller, by: 'cgroup' };
    }
    const by = kind === 'by-address' ? 'address' : 'link';
    return { caller: pods.byIp(this.ip), by, place: attestation.place };
  }

  #findAttested(pods: PodIndex, cgroupId: bigint): Caller {
    const candidates = this.#candidates(pods);
    const uid = this.#findCgroupUid(
      cgroupId,
      candidates.map(({ cgroupUid }) => cgroupUid),
    );
    const claimants = candidates.filter(({ cgroupUid }) => cgroupUid === uid);
    const pod = claimants.find((each) => each.uid === uid) ?? claimants[0];
    if (pod === undefined) return candidates.length === 0 ? unknown : otherCgroup;
    if (pod.uid === uid || claimants.length === 1) return { kind: 'pod', pod };
    return { kind: 'ambiguous', pods: claimants };
  }

  #candidates(pods: PodIndex): readonly Pod[] {
    const owner = pods.byIp(this.ip);
    if (owner.kind === 'pod') return [owner.pod];
    if (owner.kind === 'ambiguous') return owner.pods;
    const onHost = [...pods.all()].filter(({ hostNetwork }) => hostNetwork);
    const isNodes = this.#isLocal || onHost.some(({ ips }) => ips.includes(this.ip));
    return isNodes ? onHost : [];
  }
}
