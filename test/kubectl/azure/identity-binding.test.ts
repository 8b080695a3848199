import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createIdentityUse } from '../../../lab/fakes/kube/manifests.ts';
import { planIdentityBinding } from '../../../src/kubectl/azure/identity-binding.ts';
import { ordersId } from '../support/fake-az.ts';
import { clientA } from '../support/recorded-kubectl.ts';

const subject = { namespace: 'shop', serviceAccount: 'robot' };

describe('the plan of an identity binding', () => {
  it('is the right of each service account, and a line of az', () => {
    const ids = { clientId: clientA.toUpperCase(), resourceId: ordersId };
    const { objects, az } = planIdentityBinding('orders', ids, [subject]);
    const account = { namespace: 'shop', name: 'robot' };
    assert.deepEqual(objects, createIdentityUse(clientA, account));
    assert.deepEqual(
      az.map((line) => [...line.slice(0, 3), ...line.slice(-2)]),
      [['aks', 'identity-binding', 'create', '--managed-identity-resource-id', ordersId]],
    );
  });

  it('leaves an unknown resource id to the reader, and needs a client id', () => {
    const plan = (clientId: string) =>
      planIdentityBinding('orders', { clientId, resourceId: '' }, [subject]);
    assert.equal(plan(clientA).az[0]?.at(-1), 'RESOURCE_ID');
    assert.throws(() => plan('mine'), /client id of the AzureIdentity is missing or is no GUID/);
  });
});
