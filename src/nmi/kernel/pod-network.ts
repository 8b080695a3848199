/** Kernel look-ups of pod addresses, for modes that identify the caller by address. */
import { isIPv4 } from 'node:net';
import { canonicalIp } from '../../cache/index/ip.ts';
import { hasLink, placeOf } from '../../redirect/host/place.ts';
import { RedirectError, type Attestation, type Peer, type Place } from '../../redirect/redirect.ts';
import type { Log } from '../base/log.ts';

export interface PodNetwork {
  /** Place of an address; `unknown` also if the look-up fails. */
  placeOf(ip: string): Place | 'unknown';
  /** Whether there is a link of that index; true if the look-up fails. */
  hasLink(link: number): boolean;
}

/**
 * A look-up can wait for the kernel's rtnl lock: without this cache, a pod that connects thousands
 * of times a second made the others wait for 0.2 s. No address moves to another pod this fast.
 */
const recentMs = 20;
const maxRecent = 256;

/** Logs the first failure only, since every connection causes a look-up. */
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

/** Adds the place of the address to an attestation by address; returns others unchanged. */
export function withPlace(
  attestation: Attestation,
  { remoteIp }: Peer,
  network: PodNetwork,
): Attestation {
  if (attestation.kind !== 'by-address') return attestation;
  return { kind: 'by-address', place: network.placeOf(remoteIp) };
}
