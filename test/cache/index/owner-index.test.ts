import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OwnerIndex } from '../../../src/cache/index/owner-index.ts';
import { createIdentityGrant } from '../../support/cache-objects.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const resourceId = '/subscriptions/s/resourcegroups/g/x';

describe('which namespace owns an identity', () => {
  it('is none while no grant names it', () => {
    const owners = new OwnerIndex();
    assert.equal(owners.grantOfClientId('shop', clientId) !== undefined, false);
    assert.equal(owners.grantOfResourceId('shop', resourceId) !== undefined, false);
    assert.equal(owners.grantOfNodeIdentities('shop') !== undefined, false);
    owners.grants.upsert(createIdentityGrant({ namespaces: ['shop'] }));
    assert.equal(owners.grantOfClientId('shop', clientId) !== undefined, false);
    assert.equal(owners.grantOfClientId('shop', '') !== undefined, false);
    assert.equal(owners.grantOfNodeIdentities('shop') !== undefined, false);
  });

  it('is exactly the one that a grant names, however the id is written', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(
      createIdentityGrant({
        namespaces: ['shop', 'pay'],
        clientIds: [clientId],
        resourceIds: [resourceId],
      }),
    );
    for (const namespace of ['shop', 'pay']) {
      assert.equal(owners.grantOfClientId(namespace, clientId.toUpperCase()) !== undefined, true);
      assert.equal(
        owners.grantOfResourceId(namespace, `${resourceId.toUpperCase()}/`) !== undefined,
        true,
      );
      assert.equal(owners.grantOfNodeIdentities(namespace) !== undefined, false);
    }
    for (const namespace of ['sho', 'shop-2', 'SHOP', '', '*']) {
      assert.equal(owners.grantOfClientId(namespace, clientId) !== undefined, false, namespace);
      assert.equal(owners.grantOfResourceId(namespace, resourceId) !== undefined, false, namespace);
    }
  });

  it('is every namespace when a grant has a star', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(createIdentityGrant({ namespaces: ['*'], clientIds: [clientId] }));
    assert.equal(owners.grantOfClientId('whichever', clientId) !== undefined, true);
    assert.equal(owners.grantOfNodeIdentities('whichever') !== undefined, false);
  });

  it('has the identities of the node by a separate grant', () => {
    const owners = new OwnerIndex();
    owners.grants.upsert(createIdentityGrant({ namespaces: ['ops'], nodeIdentities: true }));
    assert.equal(owners.grantOfNodeIdentities('ops') !== undefined, true);
    assert.equal(owners.grantOfNodeIdentities('shop') !== undefined, false);
    assert.equal(owners.grantOfClientId('ops', clientId) !== undefined, false);
  });

  it('follows the grants, also when one of several remains', () => {
    const owners = new OwnerIndex();
    let steps = 0;
    owners.onChange(() => steps++);
    const grant = (name: string, namespaces: readonly string[], nodeIdentities = false) =>
      createIdentityGrant({ name, namespaces, nodeIdentities, clientIds: [clientId] });
    owners.grants.replace([grant('a', ['shop']), grant('b', ['shop', 'pay'], true)]);
    assert.deepEqual([owners.generation, steps, owners.grants.size], [1, 1, 2]);
    owners.grants.remove(grant('b', []));
    assert.equal(owners.grantOfClientId('shop', clientId) !== undefined, true);
    assert.equal(owners.grantOfClientId('pay', clientId) !== undefined, false);
    assert.equal(owners.grantOfNodeIdentities('shop') !== undefined, false);
    owners.grants.upsert(grant('a', ['pay']));
    assert.equal(owners.grantOfClientId('shop', clientId) !== undefined, false);
    assert.equal(owners.grantOfClientId('pay', clientId) !== undefined, true);
    assert.deepEqual([owners.generation, steps], [3, 3]);
    owners.grants.upsert(grant('a', ['pay']));
    owners.grants.replace([grant('a', ['pay'])]);
    assert.deepEqual([owners.generation, steps], [3, 3], 'an equal grant is no change');
    owners.grants.replace([]);
    assert.equal(owners.grantOfClientId('pay', clientId) !== undefined, false);
  });
});
