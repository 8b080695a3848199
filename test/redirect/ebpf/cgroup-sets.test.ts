import assert from 'node:assert/strict';
import { existsSync, openSync } from 'node:fs';
import { describe, it } from 'node:test';
import { diffCgroups, readCgroups, syncCgroups } from '../../../src/redirect/ebpf/cgroup-sets.ts';
import type { NativeModule } from '../../../src/redirect/native/addon.ts';

/** A kernel map with these keys, as read from their bytes. */
function nativeWith(...ids: readonly bigint[]) {
  const keyOf = (bytes: Uint8Array): bigint => Buffer.from(bytes).readBigUInt64LE();
  const bytesOf = (id: bigint): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(id);
    return bytes;
  };
  const map = new Set(ids);
  const opened: unknown[] = [];
  const maps: number[] = [];
  const open = (): number => maps.filter((each) => existsSync(`/proc/self/fd/${each}`)).length;
  const native = {
    openMap: (pin: string, readOnly: boolean) => {
      opened.push([pin, readOnly]);
      maps.push(openSync('/dev/null', 'r'));
      return maps.at(-1);
    },
    mapKeys: () => [...map].map(bytesOf),
    mapSet: (_map: unknown, key: Uint8Array) => map.add(keyOf(key)),
    mapDelete: (_map: unknown, key: Uint8Array) => map.delete(keyOf(key)),
  } as unknown as NativeModule;
  return { native, map, opened, open };
}

const large = 2n ** 63n + 5n;

describe('cgroups that are not redirected', () => {
  it('are the keys of the map, which is opened for reading only', () => {
    const { native, opened, open } = nativeWith(1n, large);
    assert.deepEqual(readCgroups(native, '/pins', 'exempt'), [1n, large]);
    assert.deepEqual(opened, [['/pins/exempt', true]]);
    assert.equal(open(), 0);
  });

  it('become the wanted ones, and no others', () => {
    const { native, map, opened, open } = nativeWith(1n, 2n);
    assert.deepEqual(syncCgroups(native, '/pins', 'exempt', [2n, large]), [
      `repaired: cgroup ${large} is not exempt`,
      'repaired: cgroup 1 is exempt',
    ]);
    assert.deepEqual(map, new Set([2n, large]));
    assert.deepEqual(opened.at(-1), ['/pins/exempt', false]);
    assert.equal(open(), 0);
    assert.deepEqual(syncCgroups(native, '/pins', 'exempt', [large, 2n]), []);
  });

  it('of pods on the host network have a map and words of their own', () => {
    const { native, map, opened } = nativeWith(1n);
    assert.deepEqual(syncCgroups(native, '/pins', 'node_pods', [2n]), [
      'repaired: cgroup 2 is not let through',
      'repaired: cgroup 1 is let through',
    ]);
    assert.deepEqual(map, new Set([2n]));
    assert.deepEqual(opened.at(-1), ['/pins/node_pods', false]);
  });

  it('are compared one by one', () => {
    assert.deepEqual(diffCgroups('exempt', [], []), []);
    assert.deepEqual(diffCgroups('exempt', [1n, 2n], [2n, 3n]), [
      'cgroup 3 is not exempt',
      'cgroup 1 is exempt',
    ]);
  });
});
