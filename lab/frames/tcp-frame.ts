/**
 * An Ethernet frame with one TCP segment in IPv4, made and read by hand. Pure.
 *
 *      0              14                    34                    54
 *     ┌──────────────┬─────────────────────┬─────────────────────┬────────
 *     │ to from type │ IPv4, no options    │ TCP, no options     │ data
 *     └──────────────┴─────────────────────┴─────────────────────┴────────
 */
import { isIPv4 } from 'node:net';

const ipAt = 14;
const tcpAt = 34;
const dataAt = 54;
const etherIpv4 = 0x0800;
const protocolTcp = 6;

/** Bits of the TCP header. */
export const tcpFlags = { fin: 0x01, syn: 0x02, rst: 0x04, push: 0x08, ack: 0x10 } as const;

export interface Segment {
  readonly fromMac: string;
  readonly toMac: string;
  readonly fromIp: string;
  readonly toIp: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly sequence: number;
  readonly acknowledge: number;
  readonly flags: number;
  readonly data: Buffer;
}

/** @throws TypeError for an invalid address. */
export function renderSegment(segment: Segment): Buffer {
  const { data } = segment;
  const frame = Buffer.alloc(dataAt + data.length);
  readMac(segment.toMac).copy(frame, 0);
  readMac(segment.fromMac).copy(frame, 6);
  frame.writeUInt16BE(etherIpv4, 12);
  frame.writeUInt8(0x45, ipAt);
  frame.writeUInt16BE(frame.length - ipAt, ipAt + 2);
  frame.writeUInt8(64, ipAt + 8);
  frame.writeUInt8(protocolTcp, ipAt + 9);
  readIp(segment.fromIp).copy(frame, ipAt + 12);
  readIp(segment.toIp).copy(frame, ipAt + 16);
  frame.writeUInt16BE(checksum(frame.subarray(ipAt, tcpAt)), ipAt + 10);
  frame.writeUInt16BE(segment.fromPort, tcpAt);
  frame.writeUInt16BE(segment.toPort, tcpAt + 2);
  frame.writeUInt32BE(segment.sequence >>> 0, tcpAt + 4);
  frame.writeUInt32BE(segment.acknowledge >>> 0, tcpAt + 8);
  frame.writeUInt8(0x50, tcpAt + 12);
  frame.writeUInt8(segment.flags, tcpAt + 13);
  frame.writeUInt16BE(0xffff, tcpAt + 14);
  data.copy(frame, dataAt);
  const length = frame.length - tcpAt;
  const sum = checksum(frame.subarray(tcpAt), sumOf(frame.subarray(26, 34)) + protocolTcp + length);
  frame.writeUInt16BE(sum, tcpAt + 16);
  return frame;
}

/**
 * Undefined for anything but TCP in IPv4. Checksums are not read: offloading may leave them unset.
 */
export function readSegment(frame: Buffer): Segment | undefined {
  if (frame.length < dataAt || frame.readUInt16BE(12) !== etherIpv4) return undefined;
  const tcp = ipAt + (frame.readUInt8(ipAt) & 0x0f) * 4;
  const end = ipAt + frame.readUInt16BE(ipAt + 2);
  if (frame.readUInt8(ipAt + 9) !== protocolTcp || frame.length < tcp + 20) return undefined;
  const data = tcp + (frame.readUInt8(tcp + 12) >>> 4) * 4;
  if (end > frame.length || data > end) return undefined;
  return {
    toMac: renderMac(frame.subarray(0, 6)),
    fromMac: renderMac(frame.subarray(6, 12)),
    fromIp: [...frame.subarray(ipAt + 12, ipAt + 16)].join('.'),
    toIp: [...frame.subarray(ipAt + 16, ipAt + 20)].join('.'),
    fromPort: frame.readUInt16BE(tcp),
    toPort: frame.readUInt16BE(tcp + 2),
    sequence: frame.readUInt32BE(tcp + 4),
    acknowledge: frame.readUInt32BE(tcp + 8),
    flags: frame.readUInt8(tcp + 13),
    data: frame.subarray(data, end),
  };
}

function readMac(text: string): Buffer {
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i.test(text)) throw new TypeError(`"${text}" is no MAC`);
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

function renderMac(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function readIp(text: string): Buffer {
  if (!isIPv4(text)) throw new TypeError(`"${text}" is no IPv4 address`);
  return Buffer.from(text.split('.').map(Number));
}

function sumOf(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += at + 1 < bytes.length ? bytes.readUInt16BE(at) : bytes.readUInt8(at) << 8;
  }
  return sum;
}

/** RFC 1071. */
function checksum(bytes: Buffer, start = 0): number {
  let sum = start + sumOf(bytes);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
