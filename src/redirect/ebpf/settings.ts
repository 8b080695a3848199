/**
 * The constants of the programs, set at loading, as the bytes of `struct nmi_settings` (native/nmi.h):
 *
 *     0 layout | 4 metadata ip | 8 listen ip | 12 metadata port | 14 listen port | 16 limit | 20 zero
 *     24 pods root | 32 QoS classes (2) | 48 network namespace | 56 digest
 *
 * Addresses and ports are in network order, other numbers in host order, which is little endian on all
 * supported machines.
 */
import { createHash } from 'node:crypto';
import type { RedirectTarget } from '../redirect.ts';
import { describeTarget } from '../target.ts';

/** `NMI_LAYOUT`: maps of another layout are not shared with these programs. */
export const mapLayout = 5;
const classesAt = 32;
const netnsAt = 48;
const digestAt = 56;
const settingsBytes = 88;

/**
 * Most records of one pod: 256 pods at this limit fill the map. The programs refuse a connect from three
 * quarters of the limit on. SDKs have a handful of connections, and the agent closes those beyond its own
 * limit for a pod.
 */
const maxCallersPerPod = 256;

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

export interface ProgramSettings {
  readonly layout: number;
  readonly target: RedirectTarget;
  readonly node: NodeIds;
  /** SHA-256 of the object file, hexadecimal. */
  readonly digest: string;
}

/** The settings of a set of programs. @param programs their object file. */
export function settingsOf(
  programs: Uint8Array,
  target: RedirectTarget,
  node: NodeIds = noNode,
): ProgramSettings {
  const digest = createHash('sha256').update(programs).digest('hex');
  return { layout: mapLayout, target, node, digest };
}

export function encodeSettings({ layout, target, node, digest }: ProgramSettings): Uint8Array {
  const bytes = new Uint8Array(settingsBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, layout, true);
  bytes.set(ipBytes(target.metadataIp), 4);
  bytes.set(ipBytes(target.listenIp), 8);
  view.setUint16(12, target.metadataPort);
  view.setUint16(14, target.listenPort);
  view.setUint32(16, maxCallersPerPod, true);
  view.setBigUint64(24, node.podsRoot, true);
  for (const [at, id] of node.qosClasses.entries()) {
    view.setBigUint64(classesAt + 8 * at, id, true);
  }
  view.setBigUint64(netnsAt, node.netnsCookie, true);
  bytes.set(Buffer.from(digest, 'hex').subarray(0, 32), digestAt);
  return bytes;
}

/** Reads settings back; undefined for bytes of another layout. */
export function decodeSettings(bytes: Uint8Array): ProgramSettings | undefined {
  if (bytes.length !== settingsBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const qosClasses = [classesAt, classesAt + 8].map((at) => view.getBigUint64(at, true));
  return {
    layout: view.getUint32(0, true),
    target: {
      metadataIp: bytes.subarray(4, 8).join('.'),
      metadataPort: view.getUint16(12),
      listenIp: bytes.subarray(8, 12).join('.'),
      listenPort: view.getUint16(14),
    },
    node: {
      podsRoot: view.getBigUint64(24, true),
      qosClasses: qosClasses.filter((id) => id !== 0n),
      netnsCookie: view.getBigUint64(netnsAt, true),
    },
    digest: Buffer.from(bytes.subarray(digestAt)).toString('hex'),
  };
}

/** Every difference as a short sentence. */
export function diffSettings(
  present: ProgramSettings | undefined,
  wanted: ProgramSettings,
): readonly string[] {
  if (present?.layout !== wanted.layout) return ['programs of another layout'];
  const problems: string[] = [];
  if (describeTarget(present.target) !== describeTarget(wanted.target)) {
    problems.push(`programs redirect ${describeTarget(present.target)}`);
  }
  if (describeNode(present.node) !== describeNode(wanted.node)) {
    problems.push("programs know other cgroups or another network namespace as the node's");
  }
  if (present.digest !== wanted.digest) problems.push('programs of another version');
  return problems;
}

function describeNode({ podsRoot, qosClasses, netnsCookie }: NodeIds): string {
  return [podsRoot, ...qosClasses, netnsCookie].join(' ');
}

function ipBytes(ip: string): readonly number[] {
  return ip.split('.').map(Number);
}
