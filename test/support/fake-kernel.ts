/** The native module with a kernel of files: each pin is a file with the object that it pins. */
import { existsSync, openSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { mock } from 'node:test';
import { deserialize, serialize } from 'node:v8';
import { nativeModule, type NativeModule, type Pins } from '../../src/redirect/native/addon.ts';

/** In order of attachment, with their `enum bpf_attach_type`. */
export const attachTypes = {
  getsockopt: 21,
  bind6: 9,
  bind4: 8,
  sockops: 3,
  connect6: 11,
  connect4: 10,
} as const;
export const hooks = Object.keys(attachTypes) as readonly (keyof typeof attachTypes)[];

/** What one of these errors is depends on its code. */
export function nativeFailure(code: string, step: string): Error {
  return Object.assign(new Error(code), { code, step });
}

export function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

function isOpenAt(descriptor: number, path: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`) === path;
  } catch {
    return false;
  }
}

type Pinned = Readonly<Record<string, unknown>>;

/** Replaces the functions of the module until `mock.restoreAll`. @param calls gets the changes. */
export function openFakeKernel(calls: string[] = []) {
  const exempt = new Set<bigint>();
  const nodePods = new Set<bigint>();
  const opened = new Map<number, string>();
  const state = {
    users: [] as readonly bigint[],
    /** Of the last programs that were loaded. */
    pins: {} as Pins,
    lastId: 0,
    counters: 10,
    /** Written into maps of counters. */
    unrecordedAtNs: [] as bigint[],
    /** Number of open maps. */
    get open() {
      return [...opened].filter(([map, pin]) => isOpenAt(map, pin)).length;
    },
  };
  const write = (pin: string, object: Pinned): void =>
    writeFileSync(pin, serialize(object), { mode: 0o600 });
  const read = (pin: string): Pinned => {
    if (!existsSync(pin)) throw nativeFailure('ENOENT', 'open pin');
    return deserialize(readFileSync(pin)) as Pinned;
  };
  const bytesOf = (id: bigint): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(id);
    return bytes;
  };
  const setOf = (map: number): Set<bigint> =>
    basename(opened.get(map) ?? '') === 'exempt' ? exempt : nodePods;
  const idIn = (key: Uint8Array): bigint => Buffer.from(key).readBigUInt64LE();
  const fake: Partial<Record<keyof NativeModule, (...args: never[]) => unknown>> = {
    load: (_object: Uint8Array, settings: Uint8Array, pins: Pins, programs: Pins) => {
      calls.push('load');
      state.pins = pins;
      for (const pin of Object.values(pins)) {
        // Pinned maps are shared.
        if (!existsSync(pin)) write(pin, { id: (state.lastId += 1), value: settings });
      }
      for (const [name, pin] of Object.entries(programs)) {
        write(pin, { name, programId: (state.lastId += 1) });
      }
    },
    attach: (program: string, attachType: number, cgroup: string, pin: string) => {
      const { name, programId } = read(program);
      const hook = hooks.find((each) => name === `nmi_${each}`);
      if (hook === undefined || attachTypes[hook] !== attachType) {
        throw nativeFailure('EINVAL', 'attach');
      }
      calls.push(`attach ${name as string} to ${cgroup}`);
      write(pin, { attachType, cgroupId: inodeOf(cgroup), programId });
    },
    replace: (program: string, pin: string) => {
      const { name, programId } = read(program);
      calls.push(`replace ${name as string}`);
      write(pin, { ...read(pin), programId });
    },
    linkInfo: read,
    openPin: (pin: string) => {
      read(pin);
      const map = openSync(pin, 'r');
      opened.set(map, pin);
      return map;
    },
    mapGet: (map: number) => {
      const pin = opened.get(map) ?? '';
      if (basename(pin) === 'settings') return read(pin)['value'];
      const counters = Buffer.alloc(8 * state.counters);
      for (let index = 0; index < state.counters; index++)
        counters.writeBigUInt64LE(BigInt(index), 8 * index);
      return counters;
    },
    mapKeys: (map: number) => [...setOf(map)].map(bytesOf),
    mapSet: (map: number, key: Uint8Array, value: Uint8Array) =>
      opened.get(map)?.endsWith('counters') === true
        ? state.unrecordedAtNs.push(Buffer.from(value).readBigUInt64LE(8 * 7))
        : setOf(map).add(idIn(key)),
    mapDelete: (map: number, key: Uint8Array) => setOf(map).delete(idIn(key)),
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
    nodePods,
    state,
    read,
    /** As another process may change a pinned object. */
    change: (pin: string, change: Pinned): void => write(pin, { ...read(pin), ...change }),
  };
}

export type FakeKernel = ReturnType<typeof openFakeKernel>;
