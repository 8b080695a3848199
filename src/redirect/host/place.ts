/** Where the kernel sends packets for a pod's address: up to three look-ups by routing netlink. */
import { inKernel } from '../native/addon.ts';
import type { Place } from '../redirect.ts';

/**
 * About 5 µs for an address with its own route. About 10 µs on a bridge, where the look-up also
 * waits for a concurrent change of links. Needs no capability.
 * @param ip IPv4.
 * @returns undefined if the kernel reports no link for this address.
 * @throws RedirectError
 */
export function placeOf(ip: string): Place | undefined {
  return inKernel((native) => native.placeOf(ip));
}

/**
 * Whether the kernel sends packets for this address, and for no other, over a link that leads to one network
 * namespace: a veth or netkit of its own, which is no port of a bridge.
 * @param ip IPv4.
 * @throws RedirectError
 */
export function ownsLink(ip: string): boolean {
  return inKernel((native) => native.ownsLink(ip));
}

/** Whether this namespace has a link of this index, which is never reused. @throws RedirectError */
export function hasLink(link: number): boolean {
  return inKernel((native) => native.hasLink(BigInt(link)));
}
