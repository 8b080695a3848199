/** What the kernel knows of the addresses of pods, for modes in which those name the caller. */
import { isIPv4 } from 'node:net';
import { canonicalIp } from '../../cache/index/ip.ts';
import { hasLink, placeOf } from '../../redirect/host/place.ts';
import { RedirectError, type Attestation, type Peer, type Place } from '../../redirect/redirect.ts';
import type { Log } from '../base/log.ts';

export interface PodNetwork {
  /** Of an address; `unknown` also where it cannot be looked up. */
  placeOf(ip: string): Place | 'unknown';
  /** Whether there is a link of that index; true where it cannot be looked up. */
  hasLink(link: number): boolean;
}

/** Logs the first failure only: every connection asks. */
export function openPodNetwork(log: Log, kernel = { placeOf, hasLink }): PodNetwork {
  let hasFailed = false;
  const attempt = <T>(ask: () => T, otherwise: T): T => {
    try {
      return ask();
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      const problem = error.message;
      if (!hasFailed) log.warn({ problem }, 'failed to look up the network link of a pod');
      hasFailed = true;
      return otherwise;
    }
  };
  return {
    placeOf: (text) => {
      const ip = canonicalIp(text) ?? '';
      if (!isIPv4(ip)) return 'unknown';
      return attempt(() => kernel.placeOf(ip), undefined) ?? 'unknown';
    },
    hasLink: (link) => attempt(() => kernel.hasLink(link), true),
  };
}

/** An attestation by address with the place of that address; others as they are. */
export function withPlace(
  attestation: Attestation,
  { remoteIp }: Peer,
  network: PodNetwork,
): Attestation {
  if (attestation.kind !== 'by-address') return attestation;
  return { kind: 'by-address', place: network.placeOf(remoteIp) };
}
