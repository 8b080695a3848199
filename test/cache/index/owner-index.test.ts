import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OwnerIndex } from '../../../src/cache/index/owner-index.ts';
import { createIdentityGrant } from '../../support/cache-objects.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const resourceId = '/subscriptions/s/resourcegroups/g/x';

describe('which namespace owns an identity', () => {
  it('is none while no grant names it', () => {
    const owners = new OwnerIndex();
    assert.equal(owners.ownsClientId('shop', clientId), false);
    assert.equal(owners.ownsResourceId('shop', resourceId), false);
    assert.equal(owners.ownsNodeIdentities('shop'), false);
    owners.grants.upsert(createIdentityGrant({ namespaces: ['shop'] }));
    assert.equal(owners.ownsClientId('shop', clientId), false);
    assert.equal(owners.ownsClientId('shop', ''), false);
    assert.equal(owners.ownsNodeIdentities('shop'), false);
  });

  it('is that which a grant names exactly, however the id is written', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(
      createIdentityGrant({
        namespaces: ['shop', 'pay'],
        clientIds: [clientId],
        resourceIds: [resourceId],
      }),
    );
    for (const namespace of ['shop', 'pay']) {
      assert.equal(owners.ownsClientId(namespace, clientId.toUpperCase()), true);
      assert.equal(owners.ownsResourceId(namespace, `${resourceId.toUpperCase()}/`), true);
      assert.equal(owners.ownsNodeIdentities(namespace), false);
    }
    for (const namespace of ['sho', 'shop-2', 'SHOP', '', '*']) {
      assert.equal(owners.ownsClientId(namespace, clientId), false, namespace);
      assert.equal(owners.ownsResourceId(namespace, resourceId), false, namespace);
    }
  });

  it('is every namespace by a star', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(createIdentityGrant({ namespaces: ['*'], clientIds: [clientId] }));
    assert.equal(owners.ownsClientId('whichever', clientId), true);
    assert.equal(owners.ownsNodeIdentities('whichever'), false);
  });

  it('has the identities of the node by a grant of its own', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(createIdentityGrant({ namespaces: ['ops'], nodeIdentities: true }));
    assert.equal(owners.ownsNodeIdentities('ops'), true);
    assert.equal(owners.ownsNodeIdentities('shop'), false);
    assert.equal(owners.ownsClientId('ops', clientId), false);
  });

  it('changes with the grants, one of several left or not', () => {
    const owners = new OwnerIndex();
    let steps = 0;
    owners.onChange(() => steps++);
    const grant = (name: string, namespaces: readonly string[], nodeIdentities = false) =>
      createIdentityGrant({ name, namespaces, nodeIdentities, clientIds: [clientId] });
    owners.grants.replace([grant('a', ['shop']), grant('b', ['shop', 'pay'], true)]);
    assert.deepEqual([owners.generation, steps, owners.grants.size], [1, 1, 2]);
    owners.grants.remove(grant('b', []));
    assert.equal(owners.ownsClientId('shop', clientId), true);
    assert.equal(owners.ownsClientId('pay', clientId), false);
    assert.equal(owners.ownsNodeIdentities('shop'), false);
    owners.grants.upsert(grant('a', ['pay']));
    assert.equal(owners.ownsClientId('shop', clientId), false);
    assert.equal(owners.ownsClientId('pay', clientId), true);
    assert.deepEqual([owners.generation, steps], [3, 3]);
    owners.grants.upsert(grant('a', ['pay']));
    owners.grants.replace([grant('a', ['pay'])]);
    assert.deepEqual([owners.generation, steps], [3, 3], 'the same is no change');
    owners.grants.replace([]);
    assert.equal(owners.ownsClientId('pay', clientId), false);
  });
});
