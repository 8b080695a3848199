/**
 * Connections of this network namespace that are older than the redirect: conntrack entries, and sockets of other
 * processes. A deletion names the entry's id, and a close the socket's cookie, so that a new one with the same ends
 * stays. (The diagnosis of sockets can select by cgroup, but not with descendants.)
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import {
  attribute,
  bytesOfIp,
  copyBytes,
  findAttribute,
  hostNumbers,
  Netlink,
  nest,
  numberOfIp,
  ofHost,
} from './netlink.ts';
import type { NetlinkRequest, OpenNetlink } from './netlink.ts';

export interface FlowEnd {
  readonly ip: string;
  readonly port: number;
}

/** Selects connections to `dialled`, except those answered by `answeredBy` or from some sources. */
export interface FlowCut {
  readonly dialled: FlowEnd;
  readonly answeredBy?: string | undefined;
  readonly sparedSources: readonly string[];
}

/** It has ended since it was listed. */
const { ENOENT } = constants.errno;
/** Of one cut. */
const maxFound = 65_536;
const inetFamily = 2;
const inet6Family = 10;
const tcp = 6;

const netfilterProtocol = 12;
const getFlow = 0x101;
const deleteFlow = 0x102;
const getGeneration = 0xa10;
/** IPv4, version 0. */
const netfilterHeader = Uint8Array.of(inetFamily, 0, 0, 0);
const flowAttributes = { original: 1, reply: 2, id: 12, zone: 18, filter: 25 } as const;
const tupleAttributes = { ip: 1, protocol: 2 } as const;
const ipAttributes = { source: 1, destination: 2 } as const;
const protocolAttributes = { number: 1, sourcePort: 2, destinationPort: 3 } as const;
/** Of the original direction: address and port of the destination, and the protocol. */
const filteredParts = 0x2a;
const loopbackNet = 127;

/** Deletes conntrack entries of TCP connections, except those answered by a loopback address. Returns their number. */
export function cutFlows(
  open: OpenNetlink,
  { dialled, answeredBy, sparedSources }: FlowCut,
): number {
  using netlink = new Netlink(open, netfilterProtocol);
  const dialledIp = numberOfIp(dialled.ip);
  const answeredIp = answeredBy === undefined ? undefined : numberOfIp(answeredBy);
  const spared = new Set(sparedSources.map(numberOfIp));
  const found: Uint8Array[][] = [];
  netlink.demand('list flows', listFlows(dialled), (flow) => {
    const ipOf = (direction: number, end: number) =>
      findAttribute(flow, 4, direction, tupleAttributes.ip, end)?.getUint32(0);
    const protocolOf = (part: number) =>
      findAttribute(flow, 4, flowAttributes.original, tupleAttributes.protocol, part);
    const { original, reply, id, zone } = flowAttributes;
    // Before Linux 5.8 the kernel lists all.
    if (ipOf(original, ipAttributes.destination) !== dialledIp) return;
    if (protocolOf(protocolAttributes.destinationPort)?.getUint16(0) !== dialled.port) return;
    if (protocolOf(protocolAttributes.number)?.getUint8(0) !== tcp) return;
    const source = ipOf(original, ipAttributes.source);
    const answering = ipOf(reply, ipAttributes.source);
    if (source === undefined || answering === undefined) return;
    // All of 127.0.0.0/8 is the node, but its interface list has 127.0.0.1 only. A flow that it
    // answers belongs to another agent of this node, aad-pod-identity's, until that ends.
    if ([source, answering].some((ip) => ip >>> 24 === loopbackNet)) return;
    if (answering === answeredIp || spared.has(source) || found.length >= maxFound) return;
    found.push([original, zone, id].flatMap((type) => copyOf(flow, type)));
  });
  return found.filter((attributes) => {
    const request = {
      type: deleteFlow,
      extent: 'one',
      fixed: netfilterHeader,
      attributes,
    } as const;
    return netlink.demand('cut flow', request, undefined, ENOENT);
  }).length;
}

function listFlows({ ip, port }: FlowEnd): NetlinkRequest {
  const ports = new DataView(new ArrayBuffer(2));
  ports.setUint16(0, port);
  const { number, destinationPort } = protocolAttributes;
  const protocol = [
    attribute(number, Uint8Array.of(tcp)),
    attribute(destinationPort, new Uint8Array(ports.buffer)),
  ];
  const address = attribute(ipAttributes.destination, bytesOfIp(ip));
  const attributes = [
    nest(
      flowAttributes.original,
      nest(tupleAttributes.ip, address),
      nest(tupleAttributes.protocol, ...protocol),
    ),
    nest(flowAttributes.filter, attribute(1, hostNumbers(Uint32Array, filteredParts))),
  ];
  return { type: getFlow, extent: 'all', fixed: netfilterHeader, attributes };
}

/** An attribute as the kernel reported it, if it did. */
function copyOf(flow: DataView, type: number): readonly Uint8Array[] {
  const part = findAttribute(flow, 4, type);
  if (part === undefined) return [];
  const payload = copyBytes(part);
  return [type === flowAttributes.original ? nest(type, payload) : attribute(type, payload)];
}

/** Generation of the nftables rules, which each change of them raises. Needs CAP_NET_ADMIN. */
export function ruleGeneration(open: OpenNetlink): number {
  using netlink = new Netlink(open, netfilterProtocol);
  let generation = 0;
  const fixed = new Uint8Array(netfilterHeader.length);
  netlink.demand('read generation', { type: getGeneration, extent: 'one', fixed }, (message) => {
    generation = findAttribute(message, 4, 1)?.getUint32(0) ?? 0;
  });
  return generation;
}

const diagnosisProtocol = 4;
const listSockets = 20;
const closeSocket = 21;
const cgroupAttribute = 21;
const foundBytes = 72;
const requestBytes = 56;
/** Of a socket that was found: its ends and its cookie. */
const idAt = 4;
const idBytes = 48;
const destinationPortAt = idAt + 2;
const destinationAt = idAt + 20;
/**
 * By the kernel's numbers: established, SYN sent and received, both FIN waits, close wait, last ACK, closing. Not
 * closed, listening, time wait or new request.
 */
const connectedStates = [1, 2, 3, 4, 5, 8, 9, 11].reduce((all, each) => all | (1 << each), 0);

/**
 * Closes the TCP sockets of this network namespace that are connected to an address and port, or to its IPv4-mapped
 * form, and that belong to one of these cgroups. Returns their number.
 */
export function cutSockets(
  open: OpenNetlink,
  { ip, port }: FlowEnd,
  cgroupIds: readonly bigint[],
): number {
  using netlink = new Netlink(open, diagnosisProtocol);
  const wanted = new Set(cgroupIds);
  const found: Uint8Array[] = [];
  for (const family of [inetFamily, inet6Family]) {
    const dialled = family === inetFamily ? [numberOfIp(ip)] : [0, 0, 0xffff, numberOfIp(ip)];
    const fixed = new Uint8Array(requestBytes);
    fixed.set([family, tcp]);
    fixed.set(hostNumbers(Uint32Array, connectedStates), 4);
    const request = { type: listSockets, extent: 'all', fixed } as const;
    netlink.demand('list sockets', request, (socket) => {
      const isDialled =
        socket.getUint16(destinationPortAt) === port &&
        dialled.every((part, at) => socket.getUint32(destinationAt + 4 * at) === part);
      if (!isDialled || found.length >= maxFound) return;
      const id = findAttribute(socket, foundBytes, cgroupAttribute)?.getBigUint64(0, ofHost);
      if (id === undefined || !wanted.has(id)) return;
      const close = new Uint8Array(requestBytes);
      close.set([family, tcp]);
      close.set(copyBytes(socket, idAt, idAt + idBytes), 8);
      found.push(close);
    });
  }
  return found.filter((fixed) => {
    const request = { type: closeSocket, extent: 'one', fixed } as const;
    return netlink.demand('close socket', request, undefined, ENOENT);
  }).length;
}

/** `TCP_LISTEN` */
const listening = '0A';
/** A read of this size returns whole lines. */
const lines = Buffer.alloc(64 * 1024);

/**
 * Whether a socket listens at an address and port, by the kernel's list, which has those that listen first. Binding
 * would tell, too, but programs of an agent that does not know this one refuse that.
 */
export function isListening(ip: string, port: number): boolean {
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  const hexIp = Buffer.from(bytesOfIp(ip)).reverse().toString('hex').toUpperCase();
  const wanted = [`${hexIp}:${hexPort}`, `00000000:${hexPort}`];
  const file = openSync('/proc/net/tcp', 'r');
  try {
    for (;;) {
      const text = lines.toString('latin1', 0, readSync(file, lines));
      const sockets = [...text.matchAll(/^ *\d+: (\S+) \S+ (..)/gm)];
      const others = sockets.filter(([, , state]) => state !== listening);
      if (sockets.some((each) => wanted.includes(each[1] ?? '') && !others.includes(each)))
        return true;
      if (others.length > 0 || text === '') return false;
    }
  } finally {
    closeSync(file);
  }
}
