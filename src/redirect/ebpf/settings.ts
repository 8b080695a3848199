/**
 * The constants of the programs, set at loading, as the bytes of `struct nmi_settings` (native/nmi.h):
 *
 *     0 layout | 4 metadata ip | 8 listen ip | 12 metadata port | 14 listen port | 16 limits (4)
 *     32 pods root | 40 QoS classes (2) | 56 network namespace | 64 digest | 92 agents' ports (2)
 *
 * The first 16 bytes are the same in every version: who maintains the redirect is read from the port at 14.
 *
 * Addresses and ports are in network order, other numbers in host order, which is little endian on all
 * supported machines.
 */
import { connectRate, type RedirectTarget } from '../redirect.ts';
import { portsOf } from '../target.ts';

/** `NMI_LAYOUT`: maps of another layout are not shared with these programs. */
export const mapLayout = 8;
const limitsAt = 16;
const nodeAt = 32;
const classesAt = 40;
const netnsAt = 56;
const digestAt = 64;
const portsAt = 92;
const settingsBytes = 96;
const listenPortAt = 14;

/**
 * Most records of one pod, and while the map is half full or more: then 256 pods cannot fill it. The programs
 * refuse a connect from three quarters of the limit on. SDKs have a handful of connections, and the agent
 * closes those beyond its own limit for a pod, which is lower.
 */
const maxCallersPerPod = 640;
const maxCallersWhenShort = 128;

/** Kernel ids of the node that the programs are for. */
export interface NodeIds {
  /** The cgroup of all pods. */
  readonly podsRoot: bigint;
  /** The QoS class cgroups below it, at most two. */
  readonly qosClasses: readonly bigint[];
  /** The network namespace of the node; 0 is the initial one. */
  readonly netnsCookie: bigint;
}

/** For programs that are only loaded as a probe: each cgroup counts as a pod. */
const noNode: NodeIds = { podsRoot: 0n, qosClasses: [], netnsCookie: 0n };

/**
 * The bytes of the settings.
 * @param programs their object file.
 * @param port of the agent that gets the connections.
 */
export function settingsOf(
  programs: Uint8Array,
  target: RedirectTarget,
  port: number,
  node: NodeIds = noNode,
): Uint8Array {
  const bytes = new Uint8Array(settingsBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, mapLayout, true);
  bytes.set(ipBytes(target.metadataIp), 4);
  bytes.set(ipBytes(target.listenIp), 8);
  view.setUint16(12, target.metadataPort);
  view.setUint16(listenPortAt, port);
  const { burst, perSec } = connectRate;
  const limits = [maxCallersPerPod, maxCallersWhenShort, burst, 1e9 / perSec];
  for (const [at, limit] of limits.entries()) view.setUint32(limitsAt + 4 * at, limit, true);
  view.setBigUint64(nodeAt, node.podsRoot, true);
  for (const [at, id] of node.qosClasses.entries()) {
    view.setBigUint64(classesAt + 8 * at, id, true);
  }
  view.setBigUint64(netnsAt, node.netnsCookie, true);
  view.setUint32(digestAt, versionOf(programs), true);
  view.setUint32(digestAt + 4, programs.length, true);
  for (const [at, each] of portsOf(target).entries()) view.setUint16(portsAt + 2 * at, each);
  return bytes;
}

/** The port that programs of any version redirect to. */
export function listenPortOf(settings: Uint8Array): number {
  return new DataView(settings.buffer, settings.byteOffset).getUint16(listenPortAt);
}

const versions = new WeakMap<Uint8Array, number>();

/**
 * FNV-1a, which distinguishes the programs of two versions: who can write the settings needs no collision.
 * `node:crypto` would take 1.6 MB of memory for it, `node:zlib` 2.4.
 */
function versionOf(programs: Uint8Array): number {
  let version = versions.get(programs);
  if (version === undefined) {
    version = 0x811c_9dc5;
    for (const byte of programs) version = Math.imul(version ^ byte, 0x0100_0193);
    versions.set(programs, version);
  }
  return version;
}

/** Whether two programs read their maps alike. */
export function isSameLayout(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && isEqual(one.subarray(0, 4), other.subarray(0, 4));
}

/** The difference as a short sentence; undefined if there is none. */
export function diffSettings(present: Uint8Array, wanted: Uint8Array): string | undefined {
  if (!isSameLayout(present, wanted)) return 'programs of another layout';
  if (isEqual(present, wanted)) return undefined;
  const port = listenPortOf(present);
  return port === listenPortOf(wanted)
    ? 'programs of another version or configuration'
    : `programs redirect to port ${port}`;
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

function ipBytes(ip: string): readonly number[] {
  return ip.split('.').map(Number);
}
