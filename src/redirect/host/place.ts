/** Where the kernel sends what is for a pod's address: up to three look-ups by routing netlink. */
import { inKernel } from '../native/addon.ts';
import type { Place } from '../redirect.ts';

/**
 * About 5 µs for an address with a route of its own, 10 µs on a bridge; the latter waits for a
 * concurrent change of links. Needs no right.
 * @param ip IPv4.
 * @returns undefined where the kernel names no link for this address.
 * @throws RedirectError
 */
export function placeOf(ip: string): Place | undefined {
  return inKernel((native) => native.placeOf(ip));
}

/** Whether this namespace has a link of that index: an index is not given twice. @throws RedirectError */
export function hasLink(link: number): boolean {
  return inKernel((native) => native.hasLink(BigInt(link)));
}
