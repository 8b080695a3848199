/**
 * Callers without a matching record, in a mode that records callers. Something between the application
 * and the node's kernel made or translated the connection: a sandbox with its own network stack, NAT of a
 * container inside the pod, or a proxy that works for the pods of the node.
 *
 * Such a caller is known as in iptables mode, by its address and its network link, if that link belongs to
 * this address alone: the kernel sends answers to it and to no other pod, so a completed handshake proves
 * the pod. On a bridge another pod can take the address, so there only a record proves the pod.
 */
import type { Attestation, Peer } from '../../redirect/redirect.ts';
import type { PodNetwork } from './pod-network.ts';

export type UnrecordedCallers = 'by-link' | 'refuse';

/** Adds the link of a caller without a record of its own, if the link identifies it. */
export function withLink(
  attestation: Attestation,
  { remoteIp }: Peer,
  policy: UnrecordedCallers,
  network: Pick<PodNetwork, 'placeOf' | 'ownsLink'>,
): Attestation {
  switch (attestation.kind) {
    case 'unattested': {
      if (policy === 'refuse') return { ...attestation, refusedBy: 'option' };
      const place = network.placeOf(remoteIp);
      // The address of no pod, such as the node's own.
      if (place === 'unknown') return attestation;
      return network.ownsLink(remoteIp)
        ? { kind: 'by-link', place }
        : { ...attestation, refusedBy: 'shared-link' };
    }
    case 'attested': {
      if (attestation.isDirect !== true || policy === 'refuse') return attestation;
      const ownLink = network.ownsLink(remoteIp) ? network.placeOf(remoteIp) : 'unknown';
      return ownLink === 'unknown' ? attestation : { ...attestation, ownLink };
    }
    case 'by-address':
    case 'by-link':
    case 'unavailable':
      return attestation;
  }
}
