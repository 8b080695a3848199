import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createIdentityUse } from '../../../lab/fakes/kube/manifests.ts';
import { azLine, renderAz } from '../../../src/kubectl/azure/az.ts';
import { isOfNode, planFederation, servedIdOf } from '../../../src/kubectl/azure/federation.ts';
import { planIdentityBinding } from '../../../src/kubectl/azure/identity-binding.ts';
import { parseIdentityId, showClientIdLine } from '../../../src/kubectl/azure/identity-id.ts';
import { assignLine, computesOf } from '../../../src/kubectl/azure/node-pools.ts';
import { clientA, createIdentity, ordersId, subscription } from './recorded-kubectl.ts';

const create = ['role', 'assignment', 'create', '--role', 'Key Vault Secrets User'];

describe('a command line for az', () => {
  it('is quoted for a shell', () => {
    assert.equal(renderAz(create), "az role assignment create --role 'Key Vault Secrets User'");
  });

  it('has no value that az reads as a file, a flag, or the machine itself', () => {
    const hostile = ['@/etc/passwd', '-h', '--debug', '[system]', '', ' x', 'a\nb', 'a\u2028b'];
    for (const value of hostile) {
      assert.throws(() => azLine(['vm', 'identity', 'assign'], { identities: ['x', value] }), {
        exitCode: 1,
        message: /^az would not take ".*" as the value of --identities$/,
      });
    }
    assert.deepEqual(azLine(['a'], { name: 'n', ids: ['x', '/y'] }), [
      ...['a', '--name', 'n', '--ids', 'x', '/y'],
    ]);
  });
});

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
    const others = [{ type: 4, federation: 'pod' }, { type: 1 }, { type: 3 }];
    const isOfNodes = [{ type: 0 }, {}, { type: 4 }, ...others].map((spec) =>
      isOfNode(createIdentity('orders', spec)),
    );
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

describe('the plan of an identity binding', () => {
  const robot = { namespace: 'shop', serviceAccount: 'robot' };

  it('is the right of each service account, and a line of az', () => {
    const ids = { clientId: clientA.toUpperCase(), resourceId: ordersId };
    const { objects, az } = planIdentityBinding('orders', ids, [robot]);
    const account = { namespace: 'shop', name: 'robot' };
    assert.deepEqual(objects, createIdentityUse(clientA, account));
    assert.deepEqual(
      az.map((line) => [...line.slice(0, 3), ...line.slice(-2)]),
      [['aks', 'identity-binding', 'create', '--managed-identity-resource-id', ordersId]],
    );
  });

  it('leaves an unknown resource id to the reader, and needs a client id', () => {
    const plan = (clientId: string) =>
      planIdentityBinding('orders', { clientId, resourceId: '' }, [robot]);
    assert.equal(plan(clientA).az[0]?.at(-1), 'RESOURCE_ID');
    assert.throws(() => plan('mine'), /client id of the AzureIdentity is missing or is no GUID/);
  });
});

describe('the resource id of a user-assigned identity', () => {
  it('is read in any letter case, with or without its outer slashes', () => {
    const expected = { subscription, resourceGroup: 'shop', name: 'orders' };
    for (const id of [ordersId, ordersId.slice(1), `${ordersId}/`, ` ${ordersId}`]) {
      assert.deepEqual(parseIdentityId(id), expected, id);
    }
    const upper = parseIdentityId(ordersId.replace('resourcegroups', 'RESOURCEGROUPS'));
    assert.deepEqual(upper, expected);
    assert.equal(
      parseIdentityId(ordersId.replace('/shop/', '/(eu).shop_1-a/'))?.resourceGroup,
      '(eu).shop_1-a',
    );
  });

  it('is nothing else', () => {
    for (const id of [
      '',
      '[system]',
      '@/etc/passwd',
      ordersId.replace('userAssignedIdentities', 'other'),
      ordersId.replace('Microsoft.ManagedIdentity', 'Microsoft.Web'),
      `${ordersId}/more`,
      ordersId.replace('/orders', '/@orders'),
      ordersId.replace('/orders', '/-orders'),
      ordersId.replace('/shop/', '/sh op/'),
      `${ordersId}\nx`,
    ]) {
      assert.equal(parseIdentityId(id), undefined, id);
    }
  });

  it('leads to the client id, or to a list', () => {
    assert.match(showClientIdLine(ordersId).join(' '), /^identity show --ids \S+ --query clientId/);
    for (const id of ['', '@/etc/passwd']) {
      assert.equal(showClientIdLine(id).join(' '), 'identity list --output table');
    }
  });
});

const node = (name: string, providerID: string) => ({
  metadata: { name },
  spec: { providerID },
});

const group = 'azure:///subscriptions/s1/resourceGroups/MC_rg/providers/Microsoft.Compute';

describe('the scale sets of a cluster', () => {
  it('are found once each, with machines outside scale sets', () => {
    const computes = computesOf([
      node('b-0', `${group}/virtualMachineScaleSets/aks-b-vmss/virtualMachines/0`),
      node(
        'b-1',
        `${group.replace('MC_rg', 'mc_RG')}/virtualMachineScaleSets/aks-b-vmss/virtualMachines/1`,
      ),
      node('a', `${group}/virtualMachines/vm-a`),
      node('kind', 'kind://docker/kind/worker'),
      // Such a name would be a flag or a file for az.
      node('flag', `${group}/virtualMachines/--debug`),
      node('file', `${group.replace('MC_rg', '@file')}/virtualMachines/vm`),
    ]);
    assert.deepEqual(
      computes.map(({ kind, name }) => [kind, name]),
      [
        ['vmss', 'aks-b-vmss'],
        ['vm', 'vm-a'],
      ],
    );
    const [first, second] = computes;
    assert.equal(
      assignLine(first!, '/id').join(' '),
      'vmss identity assign --subscription s1 --resource-group mc_RG --name aks-b-vmss --identities /id',
    );
    assert.match(assignLine(second!, '/id').join(' '), /^vm identity assign .*--name vm-a /);
  });
});
