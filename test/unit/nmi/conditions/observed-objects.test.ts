import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Binding, Identity } from '../../../../src/cache/index/objects.ts';
import { parseConditions } from '../../../../src/nmi/conditions/condition.ts';
import type { Observed } from '../../../../src/nmi/conditions/observed.ts';
import {
  ObservedObjects,
  parseWorkKey,
  workKey,
} from '../../../../src/nmi/conditions/observed-objects.ts';
import { createBinding, createIdentity } from '../../../support/cache-objects.ts';

let versions = 0;
function observed<T extends Binding | Identity>(value: T): Observed<T> {
  versions += 1;
  return {
    namespace: value.namespace,
    name: value.name,
    uid: value.uid,
    resourceVersion: String(versions),
    version: String(versions),
    generation: 1,
    parsed: { ok: true, value, texts: 0 },
    conditions: parseConditions(undefined),
  };
}
const identity = (name: string) => observed(createIdentity({ name }));
const binding = (name: string, identityName: string, selector = name, createdAtWallMs = 0) =>
  observed(createBinding({ name, identityName, selector, createdAtWallMs }));
const taken = (objects: ObservedObjects) => [...objects.takeTouched()].sort();

describe('the work keys', () => {
  it('name an object', () => {
    const name = { namespace: 'shop', name: 'a.b' };
    assert.deepEqual(parseWorkKey(workKey('identity', name)), { kind: 'identity', ...name });
    assert.deepEqual(parseWorkKey(workKey('binding', name)), { kind: 'binding', ...name });
  });
});

describe('observed objects', () => {
  it('are evaluated again when they change, with all of their namespace', () => {
    const objects = new ObservedObjects();
    const elsewhere = observed(createBinding({ namespace: 'other', name: 'b', selector: 'b' }));
    objects.bindings.replace([binding('b1', 'a'), binding('b2', 'other'), elsewhere]);
    assert.equal(taken(objects).length, 3);
    assert.deepEqual(taken(objects), []);
    objects.identities.upsert(identity('a'));
    const ofNamespace = ['binding/default/b1', 'binding/default/b2', 'identity/default/a'];
    assert.deepEqual(taken(objects), ofNamespace);
    objects.identities.remove({ namespace: 'default', name: 'a', uid: 'uid-a' });
    assert.deepEqual(taken(objects), ofNamespace.slice(0, 2));
  });

  it('are evaluated again alone when only their status changes, since a write needs the version', () => {
    const objects = new ObservedObjects();
    objects.bindings.replace([binding('b1', 'a'), binding('b2', 'a')]);
    taken(objects);
    const changed = binding('b1', 'a');
    objects.bindings.upsert(changed);
    assert.deepEqual(taken(objects), ['binding/default/b1']);
    assert.equal(objects.bindings.get('default', 'b1')?.version, changed.version);
    objects.bindings.upsert({ ...changed });
    assert.deepEqual(taken(objects), [], 'the same version');
  });

  it('follow one that becomes unusable', () => {
    const objects = new ObservedObjects();
    objects.identities.upsert(identity('a'));
    objects.bindings.upsert(binding('b', 'a'));
    taken(objects);
    const parsed = { ok: false, reason: 'x', ref: undefined } as const;
    objects.identities.upsert({ ...identity('a'), parsed });
    assert.deepEqual(taken(objects), ['binding/default/b', 'identity/default/a']);
  });

  it('are all evaluated again on request', () => {
    const objects = new ObservedObjects();
    objects.identities.replace([identity('a'), identity('c')]);
    objects.bindings.upsert(binding('b', 'a'));
    taken(objects);
    objects.touchAll();
    const all = ['binding/default/b', 'identity/default/a', 'identity/default/c'];
    assert.deepEqual(taken(objects), all);
    assert.deepEqual(taken(objects), []);
  });

  it('know an identity with nearly the wanted name in the namespace', () => {
    const objects = new ObservedObjects();
    objects.identities.upsert(identity('orders'));
    assert.equal(objects.nearIdentity('default', 'Orders'), 'orders');
    assert.equal(objects.nearIdentity('other', 'Orders'), undefined);
    objects.identities.remove({ namespace: 'default', name: 'orders', uid: 'uid-orders' });
    assert.equal(objects.nearIdentity('default', 'Orders'), undefined);
  });

  it('of one selector count up to 200, the oldest first, and follow a deletion among them', () => {
    const objects = new ObservedObjects();
    const all = Array.from({ length: 202 }, (_, age) => binding(`b${age}`, 'a', 'same', age));
    objects.bindings.replace(all);
    const surplus = () =>
      [...objects.bindings.all()]
        .filter(({ parsed }) => parsed.ok && objects.isSurplus(parsed.value))
        .map(({ name }) => name);
    assert.deepEqual(surplus(), ['b200', 'b201']);
    taken(objects);
    objects.bindings.remove({ namespace: 'default', name: 'b7', uid: 'uid-b7' });
    assert.deepEqual(surplus(), ['b201']);
    assert.equal(taken(objects).length, 201, 'once, after any number of deletions');
    // Created in the same second as another, and before it by name.
    objects.bindings.upsert(binding('a', 'a', 'same', 200));
    assert.deepEqual(surplus(), ['b200', 'b201']);
  });
});
