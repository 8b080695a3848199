/**
 * The map of cgroups that the programs do not redirect, descendants included: the agent's own.
 */
import { join } from 'node:path';
import { withMap, type NativeModule } from '../native/addon.ts';

/** The programs look at keys only. */
const presentValue = Uint8Array.of(1);

/** @throws errors of the native module, also if the map does not exist. */
export function readExempt(native: NativeModule, pinFolder: string): readonly bigint[] {
  const pin = join(pinFolder, 'exempt');
  return withMap(native, pin, 'read', (map) => native.mapKeys(map).map(decodeId));
}

export interface WantedExempt {
  readonly exempt: readonly bigint[];
  /** Other entries are kept: they belong to an earlier process, which may still run. */
  readonly keepsExempt?: boolean;
}

/** Differences from the wanted cgroups, as short sentences. */
export function diffExempt(
  present: readonly bigint[],
  { exempt, keepsExempt = false }: WantedExempt,
): readonly string[] {
  const others = keepsExempt ? [] : present.filter((id) => !exempt.includes(id));
  return [
    ...exempt.filter((id) => !present.includes(id)).map((id) => `cgroup ${id} is not exempt`),
    ...others.map((id) => `cgroup ${id} is exempt`),
  ];
}

/** Makes the map equal to the wanted cgroups; returns the changes as short sentences. */
export function syncExempt(
  native: NativeModule,
  pinFolder: string,
  wanted: WantedExempt,
): readonly string[] {
  const { exempt, keepsExempt = false } = wanted;
  return withMap(native, join(pinFolder, 'exempt'), 'write', (map) => {
    const present = native.mapKeys(map).map(decodeId);
    const others = keepsExempt ? [] : present.filter((id) => !exempt.includes(id));
    for (const id of others) native.mapDelete(map, encodeId(id));
    for (const id of exempt) {
      if (!present.includes(id)) native.mapSet(map, encodeId(id), presentValue);
    }
    return diffExempt(present, wanted).map((problem) => `repaired: ${problem}`);
  });
}

function encodeId(id: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, id, true);
  return bytes;
}

function decodeId(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}
