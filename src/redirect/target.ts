/** The default target of the redirect, and its form for the kernel. */
import { isIPv4 } from 'node:net';
import type { RedirectTarget } from './redirect.ts';

/** Azure's metadata address, redirected to an address of the agent on the node. */
export const defaultTarget: RedirectTarget = {
  metadataIp: '169.254.169.254',
  metadataPort: 80,
  listenIp: '169.254.25.79',
  listenPort: 2579,
};

/**
 * The target with an address that packets can be sent to: a listener on all addresses is reached through
 * the address of the agent's link.
 * @throws RangeError for an address that is not IPv4 or a port outside 1 to 65535.
 */
export function reachableTarget(target: RedirectTarget): RedirectTarget {
  const wildcard = target.listenIp === '0.0.0.0';
  const reachable = wildcard ? { ...target, listenIp: defaultTarget.listenIp } : target;
  for (const ip of [reachable.metadataIp, reachable.listenIp]) {
    if (!isIPv4(ip)) throw new RangeError(`"${ip}" is not an IPv4 address`);
  }
  for (const port of [reachable.metadataPort, reachable.listenPort]) {
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new RangeError(`${port} is not a TCP port`);
    }
  }
  if (reachable.listenPort === 65535) throw new RangeError('there is no second port after 65535');
  return reachable;
}

/** Ports of the two agents that a node has during an update. */
export function portsOf({
  listenPort,
}: Pick<RedirectTarget, 'listenPort'>): readonly [number, number] {
  return [listenPort, listenPort + 1];
}

/** For people: `169.254.169.254:80 to 169.254.25.79:2579`. */
export function describeTarget(target: RedirectTarget, port = target.listenPort): string {
  return `${target.metadataIp}:${target.metadataPort} to ${target.listenIp}:${port}`;
}
