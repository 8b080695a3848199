import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findOtherUsers } from '../../../src/kubectl/findings/identity-users.ts';
import { clientA, clientB, createIdentity } from '../support/recorded-kubectl.ts';

const resourceID = '/subscriptions/s/resourceGroups/g/x/orders';
const own = createIdentity('orders', { type: 0, clientID: clientA, resourceID });
const at = (spec: object) => createIdentity('other', spec, { namespace: 'pay' });
const kindOf = (spec: object, identity = own) => {
  const { same, unknown } = findOtherUsers(identity, [identity, at(spec)]);
  return [same.length, unknown.length];
};

describe('other objects for the same identity', () => {
  it('have one of its ids, in any letter case', () => {
    assert.deepEqual(kindOf({ resourceID: resourceID.toUpperCase() }), [1, 0]);
    assert.deepEqual(kindOf({ type: 0, clientID: clientA.toUpperCase() }), [1, 0]);
    // One of the ids was copied from another object.
    assert.deepEqual(
      kindOf({ type: 0, clientID: clientA, resourceID: '/subscriptions/x' }),
      [1, 0],
    );
  });

  it('are no others if both ids differ, or if they need no assignment', () => {
    assert.deepEqual(kindOf({ type: 0, clientID: clientB }), [0, 0]);
    assert.deepEqual(kindOf({ type: 0, resourceID: '/subscriptions/x' }), [0, 0]);
    assert.deepEqual(kindOf({ type: 3, clientID: clientA }), [0, 0]);
    assert.deepEqual(kindOf({ type: 0 }), [0, 0]);
    assert.deepEqual(findOtherUsers(own, [own]), { same: [], unknown: [] });
  });

  it('are not known if they have no kind of id in common', () => {
    const half = createIdentity('orders', { type: 0, resourceID });
    assert.deepEqual(kindOf({ type: 0, clientID: clientA }, half), [0, 1]);
  });
});
