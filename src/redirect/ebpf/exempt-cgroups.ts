/**
 * The map of cgroups that the programs do not redirect: the agent's own. Each goes with everything
 * below it.
 */
import { join } from 'node:path';
import { withMap, type NativeModule } from '../native/addon.ts';

/** Values say nothing. */
const PRESENT = Uint8Array.of(1);

/** @throws what the native module throws, also where there is no such map. */
export function readExempt(native: NativeModule, pinFolder: string): readonly bigint[] {
  const pin = join(pinFolder, 'exempt');
  return withMap(native, pin, 'read', (map) => native.mapKeys(map).map(decodeId));
}

/** What differs from what is wanted, as short sentences. */
export function diffExempt(
  present: readonly bigint[],
  wanted: readonly bigint[],
): readonly string[] {
  return [
    ...wanted.filter((id) => !present.includes(id)).map((id) => `cgroup ${id} is not exempt`),
    ...present.filter((id) => !wanted.includes(id)).map((id) => `cgroup ${id} is exempt`),
  ];
}

/** Makes it so; returns what it mended. */
export function syncExempt(
  native: NativeModule,
  pinFolder: string,
  wanted: readonly bigint[],
): readonly string[] {
  return withMap(native, join(pinFolder, 'exempt'), 'write', (map) => {
    const present = native.mapKeys(map).map(decodeId);
    for (const id of present) if (!wanted.includes(id)) native.mapDelete(map, encodeId(id));
    for (const id of wanted) {
      if (!present.includes(id)) native.mapSet(map, encodeId(id), PRESENT);
    }
    return diffExempt(present, wanted).map((problem) => `mended: ${problem}`);
  });
}

/** Adds to what a process before this one filed, and takes nothing away: it may still run. */
export function addExempt(native: NativeModule, pinFolder: string, ids: readonly bigint[]): void {
  withMap(native, join(pinFolder, 'exempt'), 'write', (map) => {
    for (const id of ids) native.mapSet(map, encodeId(id), PRESENT);
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
