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

/** Differences from the wanted cgroups, as short sentences. */
export function diffCgroups(
  set: CgroupSet,
  present: readonly bigint[],
  wanted: readonly bigint[],
): readonly string[] {
  const missing = wanted.filter((id) => !present.includes(id));
  const others = present.filter((id) => !wanted.includes(id));
  return [
    ...missing.map((id) => `cgroup ${id} is not ${words[set]}`),
    ...others.map((id) => `cgroup ${id} is ${words[set]}`),
  ];
}

/** Makes the map equal to the wanted cgroups; returns the changes as short sentences. */
export function syncCgroups(
  native: NativeModule,
  pinFolder: string,
  set: CgroupSet,
  wanted: readonly bigint[],
): readonly string[] {
  const present = readCgroups(native, pinFolder, set);
  const changes = diffCgroups(set, present, wanted);
  if (changes.length === 0) return [];
  withMap(native, join(pinFolder, set), 'write', (map) => {
    for (const id of present) if (!wanted.includes(id)) native.mapDelete(map, encodeId(id));
    for (const id of wanted) native.mapSet(map, encodeId(id), presentValue);
  });
  return changes.map((problem) => `repaired: ${problem}`);
}

/** All supported machines are little-endian, as the programs are. */
function encodeId(id: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(id).buffer);
}

function decodeId(bytes: Uint8Array): bigint {
  return Buffer.from(bytes).readBigUInt64LE();
}
