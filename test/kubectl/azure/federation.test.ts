import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { federateLine } from '../../../src/kubectl/azure/federation.ts';

const federation = {
  clientId: 'c',
  issuer: 'https://issuer/',
  audience: 'api://AzureADTokenExchange',
};
const subject = { namespace: 'shop', serviceAccount: 'web.v1' };

describe('a federated credential', () => {
  it('is that of a user-assigned identity', () => {
    const resourceId =
      '/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders';
    assert.equal(
      federateLine({ ...federation, resourceId }, subject).join(' '),
      'identity federated-credential create --name shop-web-v1 --subscription s --resource-group rg --identity-name orders --issuer https://issuer/ --subject system:serviceaccount:shop:web.v1 --audiences api://AzureADTokenExchange',
    );
  });

  it('is that of an application if there is no resource id', () => {
    const line = federateLine({ ...federation, resourceId: '' }, subject);
    assert.deepEqual(line.slice(0, 6), [
      'ad',
      'app',
      'federated-credential',
      'create',
      '--id',
      'c',
    ]);
    assert.deepEqual(JSON.parse(line.at(-1) ?? ''), {
      name: 'shop-web-v1',
      issuer: 'https://issuer/',
      subject: 'system:serviceaccount:shop:web.v1',
      audiences: ['api://AzureADTokenExchange'],
    });
  });
});
