/** The native module with a kernel of files: each pin is a file with the object that it pins. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { mock } from 'node:test';
import { deserialize, serialize } from 'node:v8';
import { nativeModule, type NativeModule } from '../../../src/redirect/native/addon.ts';

/** In order of attachment, with their `enum bpf_attach_type`. */
export const attachTypes = {
  bind6: 9,
  bind4: 8,
  sockops: 3,
  getpeername4: 29,
  getpeername6: 30,
  connect6: 11,
  connect4: 10,
} as const;
export const hooks = Object.keys(attachTypes) as readonly (keyof typeof attachTypes)[];

/** What one of these errors is depends on its code. */
export function nativeFailure(code: string, step: string): Error {
  return Object.assign(new Error(code), { code, errno: 1, step });
}

export function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

type Pinned = Readonly<Record<string, unknown>>;

interface Loaded {
  readonly mapIds: readonly number[];
  readonly ids: Map<string, number>;
}

/** Replaces the functions of the module until `mock.restoreAll`. @param calls gets the changes. */
export function openFakeKernel(calls: string[] = []) {
  const exempt = new Set<bigint>();
  const state = {
    users: [] as readonly bigint[],
    /** Of the last programs that were loaded. */
    pins: {} as Readonly<Record<string, string>>,
    open: 0,
    lastId: 0,
  };
  const write = (pin: string, object: Pinned): void =>
    writeFileSync(pin, serialize(object), { mode: 0o600 });
  const read = (pin: string): Pinned => {
    if (!existsSync(pin)) throw nativeFailure('ENOENT', 'open pin');
    return deserialize(readFileSync(pin)) as Pinned;
  };
  const idOf = ({ ids }: Loaded, name: string): number => {
    const id = ids.get(name) ?? (state.lastId += 1);
    ids.set(name, id);
    return id;
  };
  const bytesOf = (id: bigint): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(id);
    return bytes;
  };
  const idIn = (key: Uint8Array): bigint => Buffer.from(key).readBigUInt64LE();
  const fake: Partial<Record<keyof NativeModule, (...args: never[]) => unknown>> = {
    load: (_object: Uint8Array, settings: Uint8Array, pins: Readonly<Record<string, string>>) => {
      calls.push('load');
      state.open++;
      state.pins = pins;
      for (const pin of Object.values(pins)) {
        // Pinned maps are shared.
        if (!existsSync(pin)) write(pin, { id: (state.lastId += 1), value: settings });
      }
      const mapIds = Object.values(pins).map((pin) => Number(read(pin)['id']));
      return { mapIds, ids: new Map() } satisfies Loaded;
    },
    close: () => state.open--,
    pinProgram: (programs: Loaded, name: string, pin: string) =>
      write(pin, { id: idOf(programs, name), mapIds: programs.mapIds }),
    attach: (programs: Loaded, name: string, cgroup: string, pin: string) => {
      calls.push(`attach ${name} to ${cgroup}`);
      const hook = basename(pin).replace('next_link_', '') as keyof typeof attachTypes;
      const link = { id: 0, type: 3, attachType: attachTypes[hook], cgroupId: inodeOf(cgroup) };
      write(pin, { ...link, programId: idOf(programs, name) });
    },
    replace: (programs: Loaded, name: string, pin: string) => {
      calls.push(`replace ${name}`);
      write(pin, { ...read(pin), programId: idOf(programs, name) });
    },
    detach: (pin: string) => calls.push(`detach ${basename(pin)}`),
    linkInfo: read,
    programInfo: read,
    openMap: (pin: string) => {
      const map = { name: basename(pin), ...read(pin) };
      state.open++;
      return map;
    },
    mapId: ({ id }: { readonly id: number }) => id,
    mapGet: ({ name, value }: { readonly name: string; readonly value: Uint8Array }) => {
      if (name === 'settings') return value;
      const counters = Buffer.alloc(64);
      for (let index = 0; index < 8; index++) counters.writeBigUInt64LE(BigInt(index), 8 * index);
      return counters;
    },
    mapKeys: () => [...exempt].map(bytesOf),
    mapSet: (_map: unknown, key: Uint8Array) => exempt.add(idIn(key)),
    mapDelete: (_map: unknown, key: Uint8Array) => exempt.delete(idIn(key)),
    cutSockets: (_dialled: unknown, ids: readonly bigint[]) => {
      const cut = state.users.filter((id) => ids.includes(id));
      if (cut.length > 0) calls.push(`cut ${cut.join(' ')}`);
      return cut.length;
    },
    netnsCookie: () => 1n,
  };
  const native = nativeModule();
  for (const [name, work] of Object.entries(fake)) {
    mock.method(native, name as keyof NativeModule, work as never);
  }
  return {
    calls,
    exempt,
    state,
    read,
    /** As another process may change a pinned object. */
    change: (pin: string, change: Pinned): void => write(pin, { ...read(pin), ...change }),
  };
}

export type FakeKernel = ReturnType<typeof openFakeKernel>;
