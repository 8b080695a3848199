import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Binding, Identity } from '../../../src/cache/index/objects.ts';
import { parseConditions } from '../../../src/nmi/conditions/condition.ts';
import type { Observed } from '../../../src/nmi/conditions/observed.ts';
import {
  ObservedObjects,
  parseWorkKey,
  workKey,
} from '../../../src/nmi/conditions/observed-objects.ts';
import { createBinding, createIdentity } from '../../support/cache-objects.ts';

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
    parsed: { ok: true, value },
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
  it('are evaluated again when they change, and bindings with their identity', () => {
    const objects = new ObservedObjects();
    objects.bindings.replace([binding('b1', 'a'), binding('b2', 'a'), binding('b3', 'other')]);
    assert.equal(taken(objects).length, 3);
    assert.deepEqual(taken(objects), []);
    objects.identities.upsert(identity('a'));
    const ofA = ['binding/default/b1', 'binding/default/b2', 'identity/default/a'];
    assert.deepEqual(taken(objects), ofA);
    objects.identities.upsert(identity('a'));
    assert.deepEqual(taken(objects), ofA, 'its conditions can be different');
    objects.identities.remove({ namespace: 'default', name: 'a', uid: 'uid-a' });
    assert.deepEqual(taken(objects), ofA.slice(0, 2));
    objects.bindings.upsert(binding('b1', 'other'));
    objects.bindings.remove({ namespace: 'default', name: 'b2', uid: 'uid-b2' });
    assert.deepEqual(taken(objects), ['binding/default/b1']);
    objects.identities.upsert(identity('a'));
    assert.deepEqual(taken(objects), ['identity/default/a'], 'no binding names it any more');
  });

  it('follow a binding with changed conditions, and one that becomes unusable', () => {
    const objects = new ObservedObjects();
    objects.bindings.upsert(binding('b', 'a'));
    objects.bindings.upsert(binding('b', 'a'));
    const parsed = { ok: false, reason: 'x', ref: undefined } as const;
    for (let version = 0; version < 2; version++) {
      taken(objects);
      const broken = { ...binding('b', 'a'), parsed };
      objects.bindings.upsert(broken);
      assert.deepEqual(taken(objects), ['binding/default/b'], 'a write needs its last version');
      assert.equal(objects.bindings.get('default', 'b')?.version, broken.version);
      objects.bindings.upsert({ ...broken });
      assert.deepEqual(taken(objects), [], 'the same version');
    }
    objects.identities.upsert(identity('a'));
    assert.deepEqual(taken(objects), ['identity/default/a']);
    objects.bindings.upsert(binding('b', 'a'));
    taken(objects);
    objects.bindings.remove({ namespace: 'default', name: 'b', uid: 'uid-b' });
    objects.identities.upsert(identity('a'));
    assert.deepEqual(taken(objects), ['identity/default/a']);
  });

  it('are all evaluated again on request, and identities when a grant changes', () => {
    const objects = new ObservedObjects();
    objects.identities.replace([identity('a'), identity('c')]);
    objects.bindings.upsert(binding('b', 'a'));
    taken(objects);
    objects.touchOwners();
    assert.deepEqual(taken(objects), ['identity/default/a', 'identity/default/c']);
    assert.deepEqual(taken(objects), []);
    objects.touchAll('binding');
    assert.deepEqual(taken(objects), ['binding/default/b']);
  });

  it('of one selector do not follow each other while all of them count', () => {
    const objects = new ObservedObjects();
    objects.bindings.replace([binding('b1', 'a', 'same'), binding('b2', 'a', 'same')]);
    const [first] = objects.bindings.all();
    assert.ok(first?.parsed.ok === true && !objects.isSurplus(first.parsed.value));
    taken(objects);
    objects.bindings.upsert(binding('b2', 'other', 'same'));
    assert.deepEqual(taken(objects), ['binding/default/b2']);
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
    // Only the conditions.
    objects.bindings.upsert(binding('b8', 'a', 'same', 8));
    assert.deepEqual(taken(objects), ['binding/default/b8']);
    assert.deepEqual(surplus(), ['b201']);
  });

  it('are evaluated again when the binding that makes 201 displaces one of them', () => {
    const objects = new ObservedObjects();
    objects.bindings.replace(
      Array.from({ length: 200 }, (_, index) => binding(`m${100 + index}`, 'a', 'same')),
    );
    const newest = observed(createBinding({ name: 'm299', selector: 'same' })).parsed;
    const isSurplus = () => newest.ok && objects.isSurplus(newest.value);
    assert.equal(isSurplus(), false);
    taken(objects);
    // Created in the same second, and before it by name.
    objects.bindings.upsert(binding('a', 'a', 'same'));
    assert.equal(isSurplus(), true);
    assert.ok(taken(objects).includes('binding/default/m299'));
    objects.bindings.remove({ namespace: 'default', name: 'a', uid: 'uid-a' });
    assert.equal(isSurplus(), false);
    assert.ok(taken(objects).includes('binding/default/m299'));
  });
});
