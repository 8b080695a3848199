/**
 * The map of cgroups that the programs do not redirect: the agent's own, and, where they may go
 * straight, those of excepted pods. Each goes with everything below it.
 */
import { join } from 'node:path';
import type { BpfMap, NativeModule } from '../native/addon.ts';

/** Why, by the numbers of `NMI_EXEMPT` and `NMI_EXCEPTED`. */
const REASONS = { own: 1, excepted: 2 } as const;

type Reason = keyof typeof REASONS;

export type ExemptCgroups = ReadonlyMap<bigint, Reason>;

/** Ids; `excepted` undefined leaves alone what is there of them. */
export interface WantedExempt {
  readonly own: readonly bigint[];
  readonly excepted: readonly bigint[] | undefined;
}

/** @throws what the native module throws, also where there is no such map. */
export function readExempt(native: NativeModule, pinFolder: string): ExemptCgroups {
  return withMap(native, pinFolder, (map) => read(native, map));
}

/** What differs from what is wanted, as short sentences. */
export function diffExempt(present: ExemptCgroups, wanted: WantedExempt): readonly string[] {
  const all = resolve(present, wanted);
  const states = { own: 'exempt', excepted: 'let go straight' } satisfies Record<Reason, string>;
  return [
    ...[...all]
      .filter(([id, reason]) => present.get(id) !== reason)
      .map(([id, reason]) => `cgroup ${id} is not ${states[reason]}`),
    ...[...present]
      .filter(([id]) => !all.has(id))
      .map(([id, reason]) => `cgroup ${id} is ${states[reason]}`),
  ];
}

/** Makes it so; returns what it mended. */
export function syncExempt(
  native: NativeModule,
  pinFolder: string,
  wanted: WantedExempt,
): readonly string[] {
  return withMap(native, pinFolder, (map) => {
    const present = read(native, map);
    const all = resolve(present, wanted);
    for (const id of present.keys()) if (!all.has(id)) native.mapDelete(map, encodeId(id));
    for (const [id, reason] of all) {
      if (present.get(id) !== reason)
        native.mapSet(map, encodeId(id), Uint8Array.of(REASONS[reason]));
    }
    return diffExempt(present, wanted).map((problem) => `mended: ${problem}`);
  });
}

/** What is the agent's own stays so, whatever else it is. */
function resolve(present: ExemptCgroups, { own, excepted }: WantedExempt): ExemptCgroups {
  const pods = excepted ?? [...present.keys()].filter((id) => present.get(id) === 'excepted');
  return new Map([
    ...pods.map((id) => [id, 'excepted'] as const),
    ...own.map((id) => [id, 'own'] as const),
  ]);
}

function read(native: NativeModule, map: BpfMap): ExemptCgroups {
  return new Map(
    native.mapKeys(map).map((key) => {
      const isExcepted = native.mapGet(map, key)?.[0] === REASONS.excepted;
      return [decodeId(key), isExcepted ? 'excepted' : 'own'];
    }),
  );
}

function withMap<T>(native: NativeModule, pinFolder: string, use: (map: BpfMap) => T): T {
  const map = native.openMap(join(pinFolder, 'exempt'), false);
  try {
    return use(map);
  } finally {
    native.close(map);
  }
}

function encodeId(id: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, id, true);
  return bytes;
}

function decodeId(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
}
