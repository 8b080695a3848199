import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StoredObject } from '../../../src/cache/index/objects.ts';
import { MemoryObjectStore } from '../../../src/cache/index/object-store.ts';

interface Item extends StoredObject {
  readonly value: number;
}

function createItem(name: string, value = 0, uid = `uid-${name}`, resourceVersion = '1'): Item {
  return { namespace: 'default', name, uid, resourceVersion, value };
}

function open() {
  const steps: string[] = [];
  const nameOf = (item: Item | undefined): string =>
    item === undefined ? '-' : `${item.name}${item.value}`;
  const store = new MemoryObjectStore<Item>({
    changed: (before, after) => steps.push(`${nameOf(before)} to ${nameOf(after)}`),
    settled: () => steps.push('settled'),
  });
  /** The notifications of the owner since the last call. */
  const take = (): readonly string[] => steps.splice(0);
  return { store, take };
}

describe('a store of objects', () => {
  it('keeps an object, and its version, through versions that change none of its fields', () => {
    const { store, take } = open();
    const first = createItem('a', 1, 'u', '10');
    store.upsert(first);
    store.upsert(createItem('a', 1, 'u', '11'));
    store.replace([createItem('a', 1, 'u', '12')]);
    assert.equal(store.get('default', 'a'), first);
    assert.deepEqual(take(), ['- to a1', 'settled', 'settled']);
    store.upsert(createItem('a', 2, 'u', '13'));
    assert.equal(store.get('default', 'a')?.resourceVersion, '13');
  });

  it('notifies its owner of each difference of a list, and once of the end of the list', () => {
    const { store, take } = open();
    store.replace([createItem('a'), createItem('b')]);
    assert.deepEqual(take(), ['- to a0', '- to b0', 'settled']);
    store.replace([createItem('b', 1), createItem('c')]);
    assert.deepEqual(take(), ['a0 to -', 'b0 to b1', '- to c0', 'settled']);
    assert.deepEqual(
      [...store.all()].map(({ name }) => name),
      ['b', 'c'],
    );
    assert.deepEqual([store.size, store.get('default', 'a')], [2, undefined]);
  });

  it('keeps the stored object when an equal one arrives', () => {
    const { store, take } = open();
    const first = createItem('a');
    store.upsert(first);
    take();
    store.upsert(createItem('a'));
    assert.deepEqual(take(), []);
    store.replace([createItem('a')]);
    assert.deepEqual(take(), ['settled']);
    assert.equal(store.get('default', 'a'), first);
  });

  it('notifies of one change for one object', () => {
    const { store, take } = open();
    store.upsert(createItem('a'));
    store.upsert(createItem('a', 1));
    assert.deepEqual(take(), ['- to a0', 'settled', 'a0 to a1', 'settled']);
    store.remove(createItem('a', 7));
    assert.deepEqual(take(), ['a1 to -', 'settled']);
    assert.equal(store.size, 0);
  });

  it('is not affected by the late delete of a predecessor, nor of an unknown object', () => {
    const { store, take } = open();
    store.upsert(createItem('a', 0, 'second'));
    take();
    store.remove(createItem('a', 0, 'first'));
    store.remove(createItem('b'));
    assert.deepEqual(take(), []);
    assert.equal(store.size, 1);
  });
});
