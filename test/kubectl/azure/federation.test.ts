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
      'identity federated-credential create --name shop-web__v1 --subscription s --resource-group rg --identity-name orders --issuer https://issuer/ --subject system:serviceaccount:shop:web.v1 --audiences api://AzureADTokenExchange',
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
      name: 'shop-web__v1',
      issuer: 'https://issuer/',
      subject: 'system:serviceaccount:shop:web.v1',
      audiences: ['api://AzureADTokenExchange'],
    });
  });

  const nameOf = (namespace: string, serviceAccount: string) =>
    federateLine(
      {
        ...federation,
        resourceId:
          '/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders',
      },
      { namespace, serviceAccount },
    )[4] ?? '';

  it('has a name of its own for each service account', () => {
    const labels = ['a', 'b', 'a-b', 'b-c', 'a--b', 'a-b-c', 'x'.repeat(63)];
    const accounts = [
      ...labels,
      ...labels.flatMap((one) => labels.map((other) => `${one}.${other}`)),
      `${'y'.repeat(110)}.a`,
      `${'y'.repeat(110)}-a`,
      'y'.repeat(253),
      `${'y'.repeat(252)}z`,
    ];
    const names = labels.flatMap((namespace) =>
      accounts.map((account) => nameOf(namespace, account)),
    );
    assert.deepEqual(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^[A-Za-z0-9][\w-]{2,119}$/);
  });

  it('keeps its name from one release to the next', () => {
    assert.equal(nameOf('shop', 'web-v1'), 'shop-web-v1');
    assert.equal(nameOf('shop-eu', 'web'), 'shop-eu_web');
    assert.equal(
      nameOf('shop', 'w'.repeat(200)),
      `shop-${'w'.repeat(80)}___4ce35705abff4d76056ac4089fe78ab3`,
    );
  });
});
