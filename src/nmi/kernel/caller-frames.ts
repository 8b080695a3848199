/**
 * The protocol between the two processes of a split agent: frames of a fixed size. Answers have the order
 * of the requests. Ports are in network order, other numbers little endian.
 *
 *     status       1
 *     look-up      2 · port(2) ip(4)
 *     let-through  3 more ······ cgroup-id(8); one of several, the last one has no more; the id 0 is none
 *
 *     status       1 mode active · layout(4) metadata-ip(4) listen-ip(4) metadata-port(2) listen-port(2)
 *     look-up      2 outcome direct ··· ·· cgroup-id(8) at byte 8
 *     let-through  3
 */
import type { Attestation, RedirectMode, RedirectTarget } from '../../redirect/redirect.ts';

export const requestBytes = 16;
export const answerBytes = 20;

/** The modes that one process can maintain for another. */
export type KeptMode = Extract<RedirectMode, 'ebpf' | 'iptables'>;

/** State of the redirect that the other process maintains. */
export interface RedirectReport {
  readonly mode: KeptMode;
  /** The redirect is active; with eBPF the pod of both processes is exempt from it. */
  readonly isActive: boolean;
  /** Layout of the programs' maps: increases with each change of a record's meaning. */
  readonly layout: number;
  readonly target: RedirectTarget;
}

export type Request =
  | { readonly kind: 'status' }
  | { readonly kind: 'look-up'; readonly ip: string; readonly port: number }
  | { readonly kind: 'let-through'; readonly cgroupId: bigint; readonly hasMore: boolean };

export type Answer =
  | { readonly kind: 'status'; readonly report: RedirectReport }
  | { readonly kind: 'look-up'; readonly found: Attestation }
  | { readonly kind: 'let-through' };

const kinds = { status: 1, 'look-up': 2, 'let-through': 3 } as const;
const modes: readonly KeptMode[] = ['ebpf', 'iptables'];
const outcomes = { unavailable: 0, unattested: 1, attested: 2, unrecorded: 3 } as const;
/** By the outcome of a look-up that found nobody. */
const nobody = new Map<number, Attestation>([
  [outcomes.unavailable, { kind: 'unavailable', why: '`nmi redirect run` cannot look it up now' }],
  [outcomes.unattested, { kind: 'unattested' }],
  [
    outcomes.unrecorded,
    {
      kind: 'unattested',
      retryWhy:
        'this node had no room for a record of it, or the redirect was changed less than a minute ago',
    },
  ],
]);

/** Writes a request at an offset of bytes that are zero there. */
export function writeRequest(request: Request, bytes: Buffer, at: number): void {
  bytes[at] = kinds[request.kind];
  if (request.kind === 'status') return;
  if (request.kind === 'let-through') {
    bytes[at + 1] = request.hasMore ? 1 : 0;
    bytes.writeBigUInt64LE(request.cgroupId, at + 8);
    return;
  }
  bytes.writeUInt16BE(request.port, at + 2);
  writeIp(request.ip, bytes, at + 4);
}

/** Undefined for invalid bytes. */
export function readRequest(bytes: Buffer, at: number): Request | undefined {
  switch (bytes[at]) {
    case kinds.status:
      return { kind: 'status' };
    case kinds['look-up']:
      return { kind: 'look-up', ip: readIp(bytes, at + 4), port: bytes.readUInt16BE(at + 2) };
    case kinds['let-through']:
      return {
        kind: 'let-through',
        cgroupId: bytes.readBigUInt64LE(at + 8),
        hasMore: bytes[at + 1] === 1,
      };
    default:
      return undefined;
  }
}

/** Writes an answer at an offset of bytes that are zero there. */
export function writeAnswer(answer: Answer, bytes: Buffer, at: number): void {
  bytes[at] = kinds[answer.kind];
  if (answer.kind === 'let-through') return;
  if (answer.kind === 'look-up') {
    const { found } = answer;
    bytes[at + 1] = outcomeOf(found);
    if (found.kind !== 'attested') return;
    bytes[at + 2] = found.isDirect === true ? 1 : 0;
    bytes.writeBigUInt64LE(found.cgroupId, at + 8);
    return;
  }
  const { mode, isActive, layout, target } = answer.report;
  bytes[at + 1] = modes.indexOf(mode);
  bytes[at + 2] = isActive ? 1 : 0;
  bytes.writeUInt32LE(layout, at + 4);
  writeIp(target.metadataIp, bytes, at + 8);
  writeIp(target.listenIp, bytes, at + 12);
  bytes.writeUInt16BE(target.metadataPort, at + 16);
  bytes.writeUInt16BE(target.listenPort, at + 18);
}

/** The iptables mode has no records. */
function outcomeOf(found: Attestation): number {
  if (found.kind === 'attested') return outcomes.attested;
  if (found.kind !== 'unattested') return outcomes.unavailable;
  return found.retryWhy === undefined ? outcomes.unattested : outcomes.unrecorded;
}

/** Undefined for invalid bytes. */
export function readAnswer(bytes: Buffer, at: number): Answer | undefined {
  // No mutation: a frame is complete, and only the compiler needs a default.
  const word = bytes[at + 1] ?? 0;
  if (bytes[at] === kinds['let-through']) return { kind: 'let-through' };
  if (bytes[at] === kinds['look-up']) {
    const isDirect = bytes[at + 2] === 1;
    const found =
      word === outcomes.attested
        ? ({ kind: 'attested', cgroupId: bytes.readBigUInt64LE(at + 8), isDirect } as const)
        : nobody.get(word);
    return found && { kind: 'look-up', found };
  }
  const mode = modes[word];
  if (bytes[at] !== kinds.status || mode === undefined) return undefined;
  const target: RedirectTarget = {
    metadataIp: readIp(bytes, at + 8),
    listenIp: readIp(bytes, at + 12),
    metadataPort: bytes.readUInt16BE(at + 16),
    listenPort: bytes.readUInt16BE(at + 18),
  };
  const isActive = bytes[at + 2] === 1;
  return { kind: 'status', report: { mode, isActive, layout: bytes.readUInt32LE(at + 4), target } };
}

/** Splits received bytes into frames; buffers less than one frame. */
export class FrameReader {
  readonly #frameBytes: number;
  #rest: Buffer = Buffer.alloc(0);

  constructor(frameBytes: number) {
    this.#frameBytes = frameBytes;
  }

  /** All complete frames, concatenated. */
  take(chunk: Buffer): Buffer {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const whole = bytes.length - (bytes.length % this.#frameBytes);
    this.#rest = Buffer.from(bytes.subarray(whole));
    return bytes.subarray(0, whole);
  }
}

function writeIp(ip: string, bytes: Buffer, at: number): void {
  let offset = at;
  for (const part of ip.split('.')) bytes[offset++] = Number(part);
}

function readIp(bytes: Buffer, at: number): string {
  return bytes.subarray(at, at + 4).join('.');
}
