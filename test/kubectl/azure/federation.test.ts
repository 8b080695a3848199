import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isOfNode, planFederation, servedIdOf } from '../../../src/kubectl/azure/federation.ts';
import { ordersId, subscription } from '../support/fake-az.ts';
import { clientA, createIdentity } from '../support/recorded-kubectl.ts';

const federation = {
  resourceId: ordersId,
  clientId: clientA,
  issuer: 'https://issuer/',
  audience: 'api://AzureADTokenExchange',
};
const subject = { namespace: 'shop', serviceAccount: 'web.v1' };
const ofSubject = 'system:serviceaccount:shop:web.v1';

describe('a federated credential', () => {
  it('is that of a user-assigned identity', () => {
    const { az } = planFederation(federation, [subject]);
    assert.equal(
      az.map((line) => line.join(' ')).join('\n'),
      `identity federated-credential create --name shop-web-v1-96a4c08508e68e7e --subscription ${subscription} --resource-group shop --identity-name orders --issuer https://issuer/ --subject ${ofSubject} --audiences api://AzureADTokenExchange`,
    );
  });

  it('is one of twenty that Azure allows', () => {
    const notesOf = (count: number) =>
      planFederation(
        federation,
        Array.from({ length: count }, (_, at) => ({ ...subject, serviceAccount: `a${at}` })),
      ).notes.join('\n');
    assert.doesNotMatch(notesOf(20), /Azure allows/);
    assert.match(notesOf(21), /^21 service accounts, and Azure allows 20 /m);
  });

  it('is that of either kind while the resource id is not known', () => {
    const { az, notes } = planFederation({ ...federation, resourceId: '' }, [subject]);
    assert.deepEqual(az, [], 'one of the two would fail');
    const text = notes.join('\n');
    assert.match(text, /A managed identity \(az identity list --query .*431054d5/);
    assert.match(
      text,
      /az identity federated-credential create --name shop-web-v1-96a4c08508e68e7e --resource-group RESOURCE_GROUP --identity-name IDENTITY --issuer/,
    );
    assert.match(
      text,
      new RegExp(
        `An application:\\n  az ad app federated-credential create --id ${clientA} --parameters '\\{"name":"shop-web-v1-96a4c08508e68e7e",.*"subject":"${ofSubject}"`,
      ),
    );
  });

  it('is refused for ids that az would read as something else', () => {
    for (const resourceId of ['[system]', '@/etc/passwd', '/subscriptions/s/x']) {
      assert.throws(() => planFederation({ ...federation, resourceId }, [subject]), {
        message: /spec\.resourceID .* is no id of a user-assigned identity/,
      });
    }
    for (const clientId of ['', '@/etc/passwd', 'mine']) {
      assert.throws(() => planFederation({ ...federation, resourceId: '', clientId }, [subject]), {
        message: /client id of the AzureIdentity is missing or is no GUID/,
      });
    }
  });

  const nameOf = (namespace: string, serviceAccount: string, issuer = federation.issuer) =>
    planFederation({ ...federation, issuer }, [{ namespace, serviceAccount }]).az[0]?.[4] ?? '';

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

  it('keeps its name from one release to the next, and has another in another cluster', () => {
    assert.equal(nameOf('shop', 'web.v1'), 'shop-web-v1-96a4c08508e68e7e');
    assert.equal(nameOf('shop', 'w'.repeat(200)), `shop-${'w'.repeat(95)}-c7e2ed0d52b5d264`);
    assert.notEqual(nameOf('shop', 'web.v1', 'https://other-cluster/'), nameOf('shop', 'web.v1'));
  });
});

describe('the tokens of an identity', () => {
  it('begin with one of the node for a managed identity, and a chain without federation', () => {
    const isOfNodes = [
      { type: 0 },
      {},
      { type: 4 },
      { type: 4, federation: 'pod' },
      { type: 1 },
      { type: 3 },
    ].map((spec) => isOfNode(createIdentity('orders', spec)));
    assert.deepEqual(isOfNodes, [true, true, true, false, false, false]);
  });

  it('have the id of its agent identity, else of its application, else its own', () => {
    const application = { clientID: ' app ' };
    const served = [
      { type: 4, clientID: 'own', application, agentIdentity: 'agent' },
      { type: 4, clientID: 'own', application },
      { type: 0, clientID: 'own', application },
    ].map((spec) => servedIdOf(createIdentity('orders', spec)));
    assert.deepEqual(served, ['agent', 'app', 'own']);
  });
});
