/**
 * Who opened a connection. Identity comes from what the kernel reports of the socket and never
 * from a header.
 *
 * 1. By address: the pod that has the source address, if the connection comes from that pod's place.
 * 2. Attested: the pod that the caller's cgroup belongs to, and the source address must be that
 *    pod's too. On the host network the address is the node's and says nothing; there the cgroup
 *    alone names the pod. A cgroup that does not belong to the pod of the address may be that of a
 *    new pod that is not known yet, and is nobody's until it is. A static pod says itself what its
 *    cgroup is called, so it never comes before the pod that has that for its uid.
 *
 * A connection belongs to the pod that opened it (that had the address then, or, if none was known
 * yet, that first was known to have it) for as long as it lives. If its address has since
 * gone to another pod, the socket is still in the first pod's network namespace: such a connection
 * is closed, and neither pod's token is given on it.
 */
import { canonicalIp } from '../../cache/index/ip.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { Party } from '../../cache/token/fair-queue.ts';
import type { Attestation } from '../../redirect/redirect.ts';
import type { PodPlaces } from './pod-places.ts';

export type Caller =
  | { readonly kind: 'pod'; readonly pod: Pod }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'ambiguous'; readonly pods: readonly Pod[] }
  | { readonly kind: 'outlived' }
  /** The pod of the address is at another place. */
  | { readonly kind: 'misplaced' }
  | Extract<Attestation, { kind: 'unattested' | 'unavailable' }>;

/** Which of these pods a cgroup belongs to, by what the kubelet calls their cgroups. */
export type FindCgroupUid = (cgroupId: bigint, candidates: readonly string[]) => string | undefined;

export interface CallerEnd {
  /** Empty when the kernel gave none. */
  readonly remoteIp: string;
  readonly localIp?: string;
}

const unknown: Caller = { kind: 'unknown' };
const outlived: Caller = { kind: 'outlived' };
const misplaced: Caller = { kind: 'misplaced' };

/** For modes that attest nothing. */
const noCgroups: FindCgroupUid = () => undefined;

/** What limits count a pod under. */
export function limitKeyOf({ uid }: Pod): string {
  return `pod ${uid}`;
}

/** The pod that a limit key counts; undefined for one that is deleted, and for all that are no pods. */
export function podOfLimitKey(limitKey: string, pods: PodIndex): Pod | undefined {
  return limitKey.startsWith('pod ') ? pods.byUid(limitKey.slice('pod '.length)) : undefined;
}

/** Whose turn it is when what a pod asks for waits. */
export function partyOf(pod: Pod): Party {
  return { namespace: pod.namespace, pod: limitKeyOf(pod) };
}

function isOnLoopback(ip: string): boolean {
  return ip.startsWith('127.');
}

/** The state of one accepted connection; lives as long as its socket. */
export class CallerConnection {
  /** Canonical address of the peer; empty when the kernel gave none (the peer is gone). */
  readonly ip: string;
  /** Both ends have one address: the peer is a process on the node's own network. */
  readonly #isLocal: boolean;
  readonly attestation: Attestation;
  readonly #findCgroupUid: FindCgroupUid;
  #ownerUid: string | undefined;
  #limitKey: string;
  #generation = -1;
  #caller: Caller = unknown;

  constructor(end: CallerEnd, attestation: Attestation, findCgroupUid: FindCgroupUid = noCgroups) {
    this.ip = canonicalIp(end.remoteIp) ?? '';
    const isLoopback = isOnLoopback(this.ip);
    // Of use to attested and local callers only, and a system call for a socket.
    const isAsked = attestation.kind === 'attested' || isLoopback;
    const localAddress = isAsked ? canonicalIp(end.localIp ?? '') : undefined;
    this.#isLocal = localAddress === this.ip;
    this.attestation = attestation;
    const isOfNode =
      this.#isLocal || (isLoopback && localAddress !== undefined && !isOnLoopback(localAddress));
    const nodeKey = attestation.kind === 'attested' ? `cgroup ${attestation.cgroupId}` : 'node';
    this.#limitKey = isOfNode ? nodeKey : this.ip;
    this.#findCgroupUid = findCgroupUid;
  }

  /**
   * What limits count it under: its pod, once that is known. Before, all of one address share limits;
   * on the host network, where a process has many to choose from, all of one cgroup, or of the node
   * where that is not known.
   */
  get limitKey(): string {
    return this.#limitKey;
  }

  /**
   * The caller by the present index; looked up again only when the index has changed, or while it is
   * misplaced, which a proof of the index alone may end.
   * @param places absent where the address is all there is.
   */
  resolve(pods: PodIndex, places?: PodPlaces): Caller {
    if (this.#generation !== pods.generation || this.#caller === misplaced) {
      this.#generation = pods.generation;
      this.#caller = this.#lookUp(pods, places);
    }
    return this.#caller;
  }

  /** The caller as it was resolved last. */
  get latest(): Caller {
    return this.#caller;
  }

  /** The pod that opened it is not there any more. */
  hasOutlived(pods: PodIndex): boolean {
    return this.#ownerUid !== undefined && pods.byUid(this.#ownerUid) === undefined;
  }

  #lookUp(pods: PodIndex, places: PodPlaces | undefined): Caller {
    const found = this.#find(pods);
    if (found.kind !== 'pod') return found;
    if (this.#ownerUid === undefined) {
      if (!this.#isInPlace(found.pod, places)) return misplaced;
      this.#ownerUid = found.pod.uid;
      this.#limitKey = limitKeyOf(found.pod);
    }
    return found.pod.uid === this.#ownerUid ? found : outlived;
  }

  #isInPlace(pod: Pod, places: PodPlaces | undefined): boolean {
    const { attestation } = this;
    if (attestation.kind !== 'by-address' || attestation.place === undefined) return true;
    return places?.isOf(pod, this.ip, attestation.place) ?? true;
  }

  #find(pods: PodIndex): Caller {
    switch (this.attestation.kind) {
      case 'unattested':
      case 'unavailable':
        return this.attestation;
      case 'by-address':
        return pods.byIp(this.ip);
      case 'attested':
        return this.#findAttested(pods, this.attestation.cgroupId);
    }
  }

  #findAttested(pods: PodIndex, cgroupId: bigint): Caller {
    const candidates = this.#candidates(pods);
    const uid = this.#findCgroupUid(
      cgroupId,
      candidates.map(({ cgroupUid }) => cgroupUid),
    );
    const claimants = candidates.filter(({ cgroupUid }) => cgroupUid === uid);
    const pod = claimants.find((each) => each.uid === uid) ?? claimants[0];
    if (pod === undefined) return unknown;
    if (pod.uid === uid || claimants.length === 1) return { kind: 'pod', pod };
    return { kind: 'ambiguous', pods: claimants };
  }

  /** Whom the address allows it to be. */
  #candidates(pods: PodIndex): readonly Pod[] {
    const owner = pods.byIp(this.ip);
    if (owner.kind === 'pod') return [owner.pod];
    if (owner.kind === 'ambiguous') return owner.pods;
    const onHost = [...pods.all()].filter(({ hostNetwork }) => hostNetwork);
    const isNodes = this.#isLocal || onHost.some(({ ips }) => ips.includes(this.ip));
    return isNodes ? onHost : [];
  }
}
