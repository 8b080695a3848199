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

/**
 * A look-up can wait for the kernel's rtnl lock, and a pod that connects thousands of times a second made the others wait
 * for 0.2 s. No address goes to another pod within this time.
 */
const recentMs = 20;
const maxRecent = 256;

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
  const recent = new Map<string, { readonly place: Place | 'unknown'; readonly atMs: number }>();
  return {
    placeOf: (text) => {
      const ip = canonicalIp(text) ?? '';
      if (!isIPv4(ip)) return 'unknown';
      const nowMs = performance.now();
      const known = recent.get(ip);
      if (known !== undefined && nowMs - known.atMs < recentMs) return known.place;
      const place = attempt(() => kernel.placeOf(ip), undefined) ?? 'unknown';
      if (recent.size >= maxRecent) recent.clear();
      recent.set(ip, { place, atMs: nowMs });
      return place;
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
