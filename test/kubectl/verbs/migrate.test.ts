import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { createFakeAz, ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  createAgentPod,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders', app: 'web' } };
const identity = createIdentity('orders', {
  type: 0,
  clientID: clientA,
  resourceID: ordersId.toUpperCase(),
});
const nodes = ['a', 'b'].map((pool) => ({
  metadata: { name: `node-${pool}`, labels: { agentpool: pool } },
  spec: {
    providerID: `azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/${pool}/virtualMachines/0`,
  },
}));

function testBedOf(changes = {}, az = createFakeAz({ identities: {} })): Recorded {
  return {
    ...boundTestBed({ nodes, [kinds.identities]: [identity], ...changes }),
    other: (program, args) =>
      program === 'az' ? az.run(args) : ok('{"issuer":"https://oidc.example/"}'),
  };
}

describe('kubectl nmi migrate export-addon', () => {
  it('has the author’s fields, and none of the server or the add-on', async () => {
    const object = {
      ...identity,
      metadata: {
        name: 'orders',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        managedFields: [{}],
        generation: 3,
        labels: { 'addonmanager.kubernetes.io/mode': 'Reconcile', team: 'shop' },
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{}' },
      },
      status: { availableReplicas: 1 },
    };
    const { stdout } = await play(
      ['migrate', 'export-addon'],
      testBedOf({ [kinds.identities]: [object] }),
    );
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(first, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: { name: 'orders-copy', namespace: 'shop', labels: { team: 'shop' } },
      spec: { type: 0, clientID: clientA, resourceID: ordersId.toUpperCase() },
    });
    const { kind, spec } = second as { kind: string; spec: { azureIdentity: string } };
    assert.deepEqual([kind, spec.azureIdentity], ['AzureIdentityBinding', 'orders-copy']);
  });

  it('leaves the names of objects that no add-on manages', async () => {
    const { stdout } = await play(['migrate', 'export-addon'], testBedOf());
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.equal((first as { metadata: { name: string } }).metadata.name, 'orders');
    assert.equal((second as { spec: { azureIdentity: string } }).spec.azureIdentity, 'orders');
  });

  it('does not make an empty file', async () => {
    assert.equal((await play(['migrate', 'export-addon', '-n', 'none'], testBedOf())).code, 1);
  });
});

describe('kubectl nmi migrate check', () => {
  it('queries Azure only if permitted, and prints what is missing', async () => {
    const pods = [createPod('web', bound), createAgentPod('node-a')];
    const az = createFakeAz({ identities: {} });
    const quiet = await play(['migrate', 'check'], testBedOf({ pods }, az));
    assert.match(quiet.stdout, /^a +a +1 +1 +unknown; add --run$/m);
    assert.deepEqual(az.lines, []);
    const asked = await play(['migrate', 'check', '--run', '--exit-code'], testBedOf({ pods }, az));
    assert.equal(asked.code, 1);
    assert.match(asked.stdout, /^b +b +1 +0 +1$/m);
    assert.match(asked.stdout, /^az vmss identity assign .*--name a --identities \/SUBSCRIPTIONS/m);
  });

  it('is satisfied when all is assigned and every node has an agent', async () => {
    const az = createFakeAz({ identities: {} });
    for (const name of ['a', 'b'])
      az.run(['vmss', 'identity', 'assign', '--name', name, '--identities', ordersId]);
    const pods = [createPod('web', bound), createAgentPod('node-a'), createAgentPod('node-b')];
    assert.equal(
      (await play(['migrate', 'check', '--run', '--exit-code'], testBedOf({ pods }, az))).code,
      0,
    );
    const idle = await play(['migrate', 'check', '--run'], testBedOf({ pods: pods.slice(1) }, az));
    assert.match(idle.stdout, /User-assigned identities that are bound to pods: 0/);
  });
});
