/**
 * The place of an address: the link that the kernel sends its packets over, and on a bridge the port and MAC.
 *
 * It identifies callers where addresses alone do not. Addresses pass from pod to pod, and the watch that reports
 * it may be late, silent or cut off; the link behind an address changes when the next pod gets it, and no two links
 * of a node have the same index.
 *
 * 1. In iptables mode, a connection from another place than the noted one is not from this pod.
 * 2. In eBPF mode, a caller without a record of its own (a sandbox with its own network stack, a container behind NAT
 *    inside the pod, a proxy that works for the pods of the node) is known like this, too, if the link belongs to its
 *    address alone: the kernel sends answers to it and to no other pod, so a completed handshake proves the pod. On a
 *    bridge another pod can take the address, so there only a record proves the pod.
 * 3. The place of a pod is noted when the watch delivers the pod, else at its first connection. One entry for each
 *    pod of the node, deleted with the pod.
 * 4. Exception: the pod has moved, since the kubelet may create a new sandbox for a pod with the same uid and the
 *    same address. Then the old link is deleted, and the API server, read again some time later, still returns the
 *    pod with that address. A watch is not sufficient: it may be late. A neighbor that answers ARP in place of a pod
 *    does not delete the pod's link.
 * 5. A place that cannot be looked up does not match the noted one. If none could be noted (data paths with one link
 *    for all pods), only the address is compared.
 */
import { isIPv4 } from 'node:net';
import type { Log } from '../../base/log.ts';
import type { Clock } from '../../base/time/clock.ts';
import { canonicalIp } from '../../cache/index/ip.ts';
import { hasEnded, type Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import { inKernel, type NativeModule } from '../../redirect/native/addon.ts';
import { RedirectError, type Attestation, type Peer, type Place } from '../../redirect/redirect.ts';

/** The kernel's look-ups. */
export interface PodNetwork {
  /** Place of an address; `unknown` also if the look-up fails. */
  placeOf(ip: string): Place | 'unknown';
  /** Whether an address has a link to itself; false if the look-up fails. */
  ownsLink(ip: string): boolean;
  /** Whether there is a link of that index; true if the look-up fails. */
  hasLink(link: number): boolean;
}

type LookUp<T> = (native: Pick<NativeModule, 'placeOf' | 'ownsLink' | 'hasLink'>) => T;

/**
 * A look-up takes about 5 µs for an address with its own route, and 10 µs on a bridge. It can wait for the kernel's
 * rtnl lock: without this cache, a pod that connects thousands of times a second made the others wait for 0.2 s. No
 * address moves to another pod this fast.
 */
const recentMs = 20;
const maxRecent = 256;

/** Logs the first failure only, since every connection causes a look-up. */
export function openPodNetwork(
  log: Log,
  clock: Clock,
  kernel: <T>(lookUp: LookUp<T>) => T = inKernel,
): PodNetwork {
  let hasFailed = false;
  const attempt = <T>(lookUp: LookUp<T>, otherwise: T): T => {
    try {
      return kernel(lookUp);
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      const problem = error.message;
      if (!hasFailed) log.warn({ problem }, 'failed to look up the network link of a pod');
      hasFailed = true;
      return otherwise;
    }
  };
  return {
    placeOf: briefly<Place | 'unknown'>(clock, 'unknown', (ip) =>
      attempt((native) => native.placeOf(ip), undefined),
    ),
    ownsLink: briefly(clock, false, (ip) => attempt((native) => native.ownsLink(ip), false)),
    hasLink: (link) => attempt((native) => native.hasLink(link), true),
  };
}

/**
 * Keeps each result for `recentMs`.
 * @param otherwise without a result, and for a text that is no IPv4 address.
 */
function briefly<T>(
  clock: Clock,
  otherwise: T,
  lookUp: (ip: string) => T | undefined,
): (text: string) => T {
  const recent = new Map<string, { readonly found: T; readonly atMs: number }>();
  return (text) => {
    const ip = canonicalIp(text) ?? '';
    if (!isIPv4(ip)) return otherwise;
    const nowMs = clock.monotonicMs();
    const known = recent.get(ip);
    if (known !== undefined && nowMs - known.atMs < recentMs) return known.found;
    const found = lookUp(ip) ?? otherwise;
    if (recent.size >= maxRecent) recent.clear();
    recent.set(ip, { found, atMs: nowMs });
    return found;
  };
}

export type UnrecordedCallers = 'by-link' | 'refuse';

/** Adds the place of the peer to an attestation that needs it to identify a pod; returns others unchanged. */
export function withPlace(
  attestation: Attestation,
  { remoteIp }: Peer,
  network: Pick<PodNetwork, 'placeOf' | 'ownsLink'>,
  policy: UnrecordedCallers,
): Attestation {
  const { kind } = attestation;
  if (kind === 'by-address') return { kind, place: network.placeOf(remoteIp) };
  if (kind === 'unattested' && policy === 'refuse') return { ...attestation, refusedBy: 'option' };
  const isDirect = kind === 'attested' && attestation.isDirect === true;
  if ((kind !== 'unattested' && !isDirect) || policy === 'refuse') return attestation;
  const place = network.placeOf(remoteIp);
  // The address of no pod, such as the node's own.
  if (place === 'unknown') return attestation;
  const isOwn = network.ownsLink(remoteIp);
  if (kind === 'attested') return isOwn ? { ...attestation, place } : attestation;
  return isOwn ? { kind: 'by-link', place } : { ...attestation, refusedBy: 'shared-link' };
}

/**
 * Wait after a move: the kubelet frees an address when it has stopped a pod's sandbox, and reports
 * a moment later that the pod has ended. Also the wait between two reads of one pod.
 */
const settleMs = 15_000;

export interface PodPlacesOptions extends Pick<PodNetwork, 'placeOf' | 'hasLink'> {
  readonly pods: PodIndex;
  readonly clock: Clock;
  /** The pod of this name as the API server has it now; undefined if there is none. */
  readonly readPod: (pod: Pod) => Promise<Pod | undefined>;
}

/** Where the address of a pod is after the pod's own link was deleted. */
interface Move {
  readonly place: Place;
  readonly seenAtMs: number;
  isReading: boolean;
}

interface Entry {
  readonly ip: string;
  place: Place | 'unknown';
  moved: Move | undefined;
}

export class PodPlaces implements Disposable {
  readonly #options: PodPlacesOptions;
  /** By uid. */
  readonly #entries = new Map<string, Entry>();
  readonly #unsubscribe: () => void;

  constructor(options: PodPlacesOptions) {
    this.#options = options;
    this.#unsubscribe = options.pods.onChange((uids) => {
      for (const uid of uids) this.#update(uid);
    });
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * Whether a connection from there can be from this pod, which has the address in the index.
   * @param ip in `canonicalIp` form.
   */
  isOf(pod: Pod, ip: string, place: Place | 'unknown'): boolean {
    const entry = this.#entries.get(pod.uid);
    if (entry?.ip !== ip) {
      this.#entries.set(pod.uid, { ip, place, moved: undefined });
      return true;
    }
    if (entry.place !== 'unknown' && !isSame(entry.place, place)) {
      this.#noteMove(pod, entry, entry.place, place);
      return false;
    }
    // The place may be known in more detail now.
    if (place !== 'unknown') entry.place = place;
    entry.moved = undefined;
    return true;
  }

  /** Whether no other pod of this node is behind the link of a place. */
  isAlone(pod: Pod, place: Place | 'unknown' | undefined): boolean {
    const link = linkOf(place);
    if (link === undefined) return false;
    for (const [uid, entry] of this.#entries) {
      if (uid !== pod.uid && linkOf(entry.place) === link) return false;
    }
    return true;
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
  }

  #noteMove(pod: Pod, entry: Entry, before: Place, place: Place | 'unknown'): void {
    const { clock, hasLink } = this.#options;
    // A pod that ends gets no new sandbox.
    if (place === 'unknown' || pod.terminating || hasLink(before.port ?? before.link)) return;
    const nowMs = clock.monotonicMs();
    if (entry.moved === undefined || !isSame(entry.moved.place, place)) {
      entry.moved = { place, seenAtMs: nowMs, isReading: false };
    }
    const { moved } = entry;
    if (nowMs - moved.seenAtMs < settleMs || moved.isReading) return;
    moved.isReading = true;
    void this.#confirm(pod, entry, moved);
  }

  /** If the pod cannot be read, the move is not confirmed, and the wait begins again. */
  async #confirm(pod: Pod, entry: Entry, moved: Move): Promise<void> {
    const now = await this.#options.readPod(pod).catch(() => undefined);
    // The address has been seen elsewhere since.
    if (entry.moved !== moved) return;
    entry.moved = undefined;
    const isConfirmed = now?.uid === pod.uid && !now.terminating && ownIpv4(now) === entry.ip;
    if (isConfirmed) entry.place = moved.place;
  }

  #update(uid: string): void {
    const { pods, placeOf } = this.#options;
    const pod = pods.byUid(uid);
    const ip = pod === undefined ? undefined : ownIpv4(pod);
    const entry = this.#entries.get(uid);
    if (entry !== undefined && entry.ip !== ip) this.#entries.delete(uid);
    else if (entry !== undefined) return;
    if (pod === undefined || ip === undefined || pod.terminating) return;
    // Two pods may have the address in the index for a moment; the place then belongs to neither.
    const owner = pods.byIp(ip);
    if (owner.kind !== 'pod' || owner.pod.uid !== uid) return;
    const place = placeOf(ip);
    // A MAC without a port may be that of the previous pod, as long as this one has sent nothing.
    const isSure = place !== 'unknown' && (place.port !== undefined || place.mac === undefined);
    if (isSure) this.#entries.set(uid, { ip, place, moved: undefined });
  }
}

function linkOf(place: Place | 'unknown' | undefined): number | undefined {
  return typeof place === 'object' ? place.link : undefined;
}

function ownIpv4(pod: Pod): string | undefined {
  if (pod.hostNetwork || hasEnded(pod)) return undefined;
  return pod.ips.map(canonicalIp).find((ip) => ip?.includes('.') === true);
}

/**
 * A bridge forgets MACs that send nothing: unless both places have a port, the MACs are compared.
 */
function isSame(one: Place, other: Place | 'unknown'): boolean {
  if (other === 'unknown' || one.link !== other.link) return false;
  if (one.port !== undefined && other.port !== undefined) return one.port === other.port;
  return one.mac === other.mac;
}
