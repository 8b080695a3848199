/**
 * What is fixed when the programs are loaded, as the bytes of `struct nmi_settings` (native/nmi.h):
 *
 *     0 layout | 4 metadata ip | 8 listen ip | 12 metadata port | 14 listen port | 16 limit | 20 digest
 *
 * Addresses and ports are in network order, the other numbers in the machine's own, which is little
 * endian wherever this program runs.
 */
import { createHash } from 'node:crypto';
import type { RedirectTarget } from '../redirect.ts';
import { describeTarget } from '../target.ts';

/** `NMI_LAYOUT`: maps of another layout are not shared with these programs. */
export const LAYOUT = 3;
const DIGEST_AT = 20;
const SETTINGS_BYTES = 52;

/** Records of one container’s cgroup: 64 of them would have to fill theirs to leave no room for others. */
const MAX_CALLERS_PER_CGROUP = 1024;

export interface ProgramSettings {
  readonly layout: number;
  readonly target: RedirectTarget;
  /** SHA-256 of the object file, hexadecimal. */
  readonly digest: string;
}

/** The settings of a set of programs. @param programs their object file. */
export function settingsOf(programs: Uint8Array, target: RedirectTarget): ProgramSettings {
  const digest = createHash('sha256').update(programs).digest('hex');
  return { layout: LAYOUT, target, digest };
}

export function encodeSettings(settings: ProgramSettings): Uint8Array {
  const bytes = new Uint8Array(SETTINGS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, settings.layout, true);
  bytes.set(ipBytes(settings.target.metadataIp), 4);
  bytes.set(ipBytes(settings.target.listenIp), 8);
  view.setUint16(12, settings.target.metadataPort);
  view.setUint16(14, settings.target.listenPort);
  view.setUint32(16, MAX_CALLERS_PER_CGROUP, true);
  bytes.set(Buffer.from(settings.digest, 'hex').subarray(0, 32), DIGEST_AT);
  return bytes;
}

/** Reads settings back; undefined for bytes that are none, as those of another layout may be. */
export function decodeSettings(bytes: Uint8Array): ProgramSettings | undefined {
  if (bytes.length !== SETTINGS_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    layout: view.getUint32(0, true),
    target: {
      metadataIp: bytes.subarray(4, 8).join('.'),
      metadataPort: view.getUint16(12),
      listenIp: bytes.subarray(8, 12).join('.'),
      listenPort: view.getUint16(14),
    },
    digest: Buffer.from(bytes.subarray(DIGEST_AT)).toString('hex'),
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
  if (present.digest !== wanted.digest) problems.push('programs of another version');
  return problems;
}

function ipBytes(ip: string): readonly number[] {
  return ip.split('.').map(Number);
}
