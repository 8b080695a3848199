/**
 * Who opened a connection. Identity comes from what the kernel reports of the socket and never
 * from a header.
 *
 * A connection belongs to the pod that opened it (that had the address then, or, if none was known
 * yet, that first was known to have it) for as long as it lives. If its address has since
 * gone to another pod, the socket is still in the first pod's network namespace: such a connection
 * is closed, and neither pod's token is given on it.
 */
import { canonicalIp } from '../cache/ip.ts';
import type { Pod } from '../cache/objects.ts';
import type { PodIndex } from '../cache/pod-index.ts';
import type { Attestation } from '../redirect/redirect.ts';

export type Caller =
  | { readonly kind: 'pod'; readonly pod: Pod }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'ambiguous'; readonly pods: readonly Pod[] }
  | { readonly kind: 'outlived' }
  | { readonly kind: 'unattested' };

const unknown: Caller = { kind: 'unknown' };
const outlived: Caller = { kind: 'outlived' };
const unattested: Caller = { kind: 'unattested' };

/** The state of one accepted connection; lives as long as its socket. */
export class CallerConnection {
  /** Canonical address of the peer; empty when the kernel gave none (the peer is gone). */
  readonly ip: string;
  readonly #attestation: Attestation;
  #ownerUid: string | undefined;
  #generation = -1;
  #caller: Caller = unknown;

  constructor(remoteAddress: string | undefined, attestation: Attestation) {
    this.ip = canonicalIp(remoteAddress ?? '') ?? '';
    this.#attestation = attestation;
  }

  /** The caller by the present index; looked up again only when the index has changed. */
  resolve(pods: PodIndex): Caller {
    if (this.#generation !== pods.generation) {
      this.#generation = pods.generation;
      this.#caller = this.#lookUp(pods);
    }
    return this.#caller;
  }

  #lookUp(pods: PodIndex): Caller {
    // No mode of this release attests by cgroup; a record that cannot be judged is no permission.
    if (this.#attestation.kind !== 'by-address') return unattested;
    const found = pods.byIp(this.ip);
    if (found.kind !== 'pod') return found;
    this.#ownerUid ??= found.pod.uid;
    return found.pod.uid === this.#ownerUid ? found : outlived;
  }
}
