/**
 * Finds where the kernel sends packets for an address, by up to three look-ups through routing netlink: the route; if
 * it is for more than this address, the station (neighbor); then the bridge port of the station. No look-up needs a
 * capability, and an address that the kernel refuses to look up has no place.
 *
 * IPv4 only: the metadata address is an IPv4 address, so all connections come over IPv4.
 */
import type { Place } from '../redirect.ts';
import {
  attribute,
  bytesOfIp,
  copyBytes,
  findAttribute,
  hostNumbers,
  Netlink,
  ofHost,
} from './netlink.ts';
import type { OpenNetlink } from './netlink.ts';

const routeProtocol = 0;
const getLink = 18;
const getRoute = 26;
const getNeighbor = 30;

const inetFamily = 2;
const bridgeFamily = 7;
const wholeAddress = 32;
/** Requests the route as it is configured, with its prefix length. */
const fibMatch = 0x2000;
const routeBytes = 12;
const neighborBytes = 12;
const linkBytes = 16;

const routeTypes = { unicast: 1, local: 2 } as const;
const routeAttributes = { destination: 1, link: 4, gateway: 5, via: 18 } as const;
const neighborAttributes = { destination: 1, mac: 2, master: 9 } as const;
const linkAttributes = { master: 10, info: 18, kind: 1 } as const;
/** Incomplete, failed, or without ARP. */
const unusableStates = 0x61;
const macBytes = 6;

interface Route {
  readonly link: number;
  readonly type: number;
  readonly isForOne: boolean;
  readonly hasGateway: boolean;
}

/** Undefined without a route, behind a gateway, or without a neighbor entry. */
export function placeOf(open: OpenNetlink, ip: string): Place | undefined {
  using netlink = new Netlink(open, routeProtocol);
  const route = findRoute(netlink, ip);
  if (route?.type !== routeTypes.unicast) return undefined;
  const { link, isForOne, hasGateway } = route;
  if (isForOne) return { link };
  const mac = hasGateway ? undefined : findStation(netlink, ip, link);
  if (mac === undefined) return undefined;
  const port = findPort(netlink, mac, link);
  return {
    link,
    ...(port === undefined ? {} : { port }),
    mac: mac.toString('hex').replace(/..(?!$)/g, '$&:'),
  };
}

/** Whether the route is for this address alone, without a gateway, over a veth or netkit that is no port. */
export function ownsLink(open: OpenNetlink, ip: string): boolean {
  using netlink = new Netlink(open, routeProtocol);
  const route = findRoute(netlink, ip);
  if (route?.type !== routeTypes.unicast || route.hasGateway || !route.isForOne) return false;
  let owns = false;
  netlink.ask(linkRequest(route.link), (link) => {
    const kind = findAttribute(link, linkBytes, linkAttributes.info, linkAttributes.kind);
    const hasMaster = findAttribute(link, linkBytes, linkAttributes.master) !== undefined;
    // The kernel ends the name with NUL.
    const name = kind === undefined ? '' : Buffer.from(copyBytes(kind)).toString('latin1');
    owns = !hasMaster && (name === 'veth\0' || name === 'netkit\0');
  });
  return owns;
}

/** Whether the kernel delivers packets for it here. Also while its link is down: connections arrive then, too. */
export function isLocal(open: OpenNetlink, ip: string): boolean {
  using netlink = new Netlink(open, routeProtocol);
  return findRoute(netlink, ip)?.type === routeTypes.local;
}

export function hasLink(open: OpenNetlink, link: number): boolean {
  using netlink = new Netlink(open, routeProtocol);
  return netlink.ask(linkRequest(link)) === 0;
}

function linkRequest(link: number) {
  const fixed = hostNumbers(Uint32Array, 0, link, 0, 0);
  return { type: getLink, extent: 'one', fixed } as const;
}

function findRoute(netlink: Netlink, ip: string): Route | undefined {
  const numbers = Uint8Array.of(inetFamily, wholeAddress, 0, 0, 0, 0, 0, 0);
  const fixed = Buffer.concat([numbers, hostNumbers(Uint32Array, fibMatch)]);
  const attributes = [attribute(routeAttributes.destination, bytesOfIp(ip))];
  let found: Route | undefined;
  netlink.ask({ type: getRoute, extent: 'one', fixed, attributes }, (route) => {
    const find = (type: number) => findAttribute(route, routeBytes, type);
    found = {
      link: find(routeAttributes.link)?.getUint32(0, ofHost) ?? 0,
      type: route.getUint8(7),
      isForOne: route.getUint8(1) === wholeAddress,
      hasGateway: (find(routeAttributes.gateway) ?? find(routeAttributes.via)) !== undefined,
    };
  });
  return found;
}

function findStation(netlink: Netlink, ip: string, link: number): Buffer | undefined {
  const fixed = hostNumbers(Uint32Array, 0, link, 0);
  fixed[0] = inetFamily;
  const attributes = [attribute(neighborAttributes.destination, bytesOfIp(ip))];
  let found: Buffer | undefined;
  netlink.ask({ type: getNeighbor, extent: 'one', fixed, attributes }, (station) => {
    const mac = findAttribute(station, neighborBytes, neighborAttributes.mac);
    const isUsable = (station.getUint16(8, ofHost) & unusableStates) === 0;
    if (isUsable && mac?.byteLength === macBytes) found = Buffer.from(copyBytes(mac));
  });
  return found;
}

/** The kernel refuses this for a link that is not a bridge. */
function findPort(netlink: Netlink, mac: Uint8Array, bridge: number): number | undefined {
  const fixed = new Uint8Array(neighborBytes);
  fixed[0] = bridgeFamily;
  const master = attribute(neighborAttributes.master, hostNumbers(Uint32Array, bridge));
  const attributes = [attribute(neighborAttributes.mac, mac), master];
  let found: number | undefined;
  netlink.ask({ type: getNeighbor, extent: 'one', fixed, attributes }, (station) => {
    found = station.getUint32(4, ofHost);
  });
  return found;
}
