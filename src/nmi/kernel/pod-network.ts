/** Kernel look-ups of pod addresses, for modes that identify the caller by address. */
import { isIPv4 } from 'node:net';
import { canonicalIp } from '../../cache/index/ip.ts';
import { inKernel, type NativeModule } from '../../redirect/native/addon.ts';
import { RedirectError, type Attestation, type Peer, type Place } from '../../redirect/redirect.ts';
import type { Log } from '../../base/log.ts';

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
 * A look-up takes about 5 µs for an address with its own route, and 10 µs on a bridge. It can wait for the kernel's rtnl lock: without this cache, a pod that connects thousands
 * of times a second made the others wait for 0.2 s. No address moves to another pod this fast.
 */
const recentMs = 20;
const maxRecent = 256;

/** Logs the first failure only, since every connection causes a look-up. */
export function openPodNetwork(
  log: Log,
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
    placeOf: briefly<Place | 'unknown'>(
      (ip) => attempt((native) => native.placeOf(ip), undefined),
      'unknown',
    ),
    ownsLink: briefly((ip) => attempt((native) => native.ownsLink(ip), false), false),
    hasLink: (link) => attempt((native) => native.hasLink(link), true),
  };
}

/**
 * Keeps each result for `recentMs`.
 * @param otherwise without a result, and for a text that is no IPv4 address.
 */
function briefly<T>(lookUp: (ip: string) => T | undefined, otherwise: T): (text: string) => T {
  const recent = new Map<string, { readonly found: T; readonly atMs: number }>();
  return (text) => {
    const ip = canonicalIp(text) ?? '';
    if (!isIPv4(ip)) return otherwise;
    const nowMs = performance.now();
    const known = recent.get(ip);
    if (known !== undefined && nowMs - known.atMs < recentMs) return known.found;
    const found = lookUp(ip) ?? otherwise;
    if (recent.size >= maxRecent) recent.clear();
    recent.set(ip, { found, atMs: nowMs });
    return found;
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
