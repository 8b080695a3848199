/**
 * The maps of cgroups that the programs do not redirect, each read and written as a set of ids.
 * `exempt`: the agent's own, with their descendants. `node_pods`: pods on the host network without a
 * binding.
 */
import { join } from 'node:path';
import { withMap, type NativeModule } from '../native/addon.ts';

export type CgroupSet = 'exempt' | 'node_pods';

/** What an entry says of a cgroup. */
const words = { exempt: 'exempt', node_pods: 'let through' } as const;

/** The programs look at keys only. */
const presentValue = Uint8Array.of(1);

/** @throws errors of the native module, also if the map does not exist. */
export function readCgroups(
  native: NativeModule,
  pinFolder: string,
  set: CgroupSet,
): readonly bigint[] {
  return withMap(native, join(pinFolder, set), 'read', (map) => native.mapKeys(map).map(decodeId));
}

export interface WantedCgroups {
  readonly ids: readonly bigint[];
  /** Other entries are kept: they belong to an earlier process, which may still run. */
  readonly keepsOthers?: boolean;
}

/** Differences from the wanted cgroups, as short sentences. */
export function diffCgroups(
  set: CgroupSet,
  present: readonly bigint[],
  { ids, keepsOthers = false }: WantedCgroups,
): readonly string[] {
  const others = keepsOthers ? [] : present.filter((id) => !ids.includes(id));
  return [
    ...ids.filter((id) => !present.includes(id)).map((id) => `cgroup ${id} is not ${words[set]}`),
    ...others.map((id) => `cgroup ${id} is ${words[set]}`),
  ];
}

/** Makes the map equal to the wanted cgroups; returns the changes as short sentences. */
export function syncCgroups(
  native: NativeModule,
  pinFolder: string,
  set: CgroupSet,
  wanted: WantedCgroups,
): readonly string[] {
  const { ids, keepsOthers = false } = wanted;
  return withMap(native, join(pinFolder, set), 'write', (map) => {
    const present = native.mapKeys(map).map(decodeId);
    const others = keepsOthers ? [] : present.filter((id) => !ids.includes(id));
    for (const id of others) native.mapDelete(map, encodeId(id));
    for (const id of ids) {
      if (!present.includes(id)) native.mapSet(map, encodeId(id), presentValue);
    }
    return diffCgroups(set, present, wanted).map((problem) => `repaired: ${problem}`);
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
