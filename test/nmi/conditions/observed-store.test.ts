import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseConditions } from '../../../src/nmi/conditions/condition.ts';
import type { Observed } from '../../../src/nmi/conditions/observed.ts';
import { ObservedStore } from '../../../src/nmi/conditions/observed-store.ts';

function observed(name: string, resourceVersion: string, uid = `uid-${name}`): Observed<string> {
  return {
    namespace: 'shop',
    name,
    uid,
    resourceVersion,
    generation: 1,
    parsed: { ok: true, value: name },
    conditions: parseConditions(undefined),
  };
}

function open() {
  const changes: string[] = [];
  const store = new ObservedStore<string>((before, after) => {
    const version = (object: Observed<string> | undefined) => object?.resourceVersion ?? '-';
    changes.push(`${(after ?? before)?.name ?? ''} ${version(before)}>${version(after)}`);
  });
  return { store, changed: () => changes.splice(0) };
}

describe('the store of observed objects', () => {
  it('reports a new version of an object, whatever has changed', () => {
    const { store, changed } = open();
    store.upsert(observed('a', '1'));
    store.upsert(observed('a', '1'));
    store.upsert(observed('a', '2'));
    assert.deepEqual(changed(), ['a ->1', 'a 1>2']);
    assert.equal(store.get('shop', 'a')?.resourceVersion, '2');
    assert.equal(store.get('office', 'a'), undefined);
  });

  it('reports the changes of a list, and nothing else', () => {
    const { store, changed } = open();
    store.replace([observed('a', '1'), observed('b', '1'), observed('c', '1')]);
    assert.deepEqual(changed(), ['a ->1', 'b ->1', 'c ->1']);
    store.replace([observed('b', '1'), observed('c', '2'), observed('d', '2')]);
    assert.deepEqual(changed(), ['a 1>-', 'c 1>2', 'd ->2']);
    assert.deepEqual([store.size, [...store.all()].map(({ name }) => name)], [3, ['b', 'c', 'd']]);
    store.replace([observed('b', '1', 'another')]);
    assert.ok(changed().includes('b 1>1'), 'created anew');
  });

  it('reports a deletion of the stored object, not of its predecessor', () => {
    const { store, changed } = open();
    store.upsert(observed('a', '1'));
    changed();
    store.remove({ namespace: 'shop', name: 'a', uid: 'another' });
    assert.deepEqual([changed(), store.size], [[], 1]);
    store.remove({ namespace: 'shop', name: 'a', uid: 'uid-a' });
    store.remove({ namespace: 'shop', name: 'a', uid: 'uid-a' });
    assert.deepEqual([changed(), store.size], [['a 1>-'], 0]);
  });
});
