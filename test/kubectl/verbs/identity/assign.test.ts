import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createFakeAz, ordersId, tenant } from '../../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createIdentity,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../support/recorded-kubectl.ts';

const issuer = ok('{"issuer":"https://oidc.example/1/"}');
const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };

const chain = {
  type: 4,
  clientID: clientA,
  resourceID: ordersId,
  application: { tenantID: tenant, clientID: clientB },
};

function testBedOf(changes = {}, az = createFakeAz()): Recorded {
  return {
    ...boundTestBed(changes),
    other: (program, args) => (program === 'az' ? az.run(args) : issuer),
  };
}

describe('kubectl nmi identity assign', () => {
  it('limits the binding', async () => {
    const words = [
      'identity',
      'assign',
      'orders',
      '--selector',
      'web',
      '--service-account',
      'robot',
    ];
    const { stdout } = await play(words, testBedOf({ [kinds.bindings]: [] }));
    assert.match(stdout, /selector: web\n {2}serviceAccount: robot\n/);
  });

  it('needs no scale set for an identity that is federated', async () => {
    const { stdout } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf({ [kinds.identities]: [createIdentity('orders', federated)] }),
    );
    assert.doesNotMatch(stdout, /vmss/);
    assert.match(stdout, /It is federated: kubectl nmi identity federate orders -n shop/);
  });

  it('assigns the managed identity that a chain begins with', async () => {
    const assign = async (spec: object) => {
      const testBed = testBedOf({ [kinds.identities]: [createIdentity('orders', spec)] });
      return (await play(['identity', 'assign', 'orders'], testBed)).stdout;
    };
    const byNode = await assign(chain);
    assert.match(byNode, /vmss identity assign .*userAssignedIdentities/);
    assert.match(byNode, /has to trust what it begins with: kubectl nmi identity federate orders/);
    const byPod = { ...chain, clientID: '', resourceID: '', federation: 'pod' };
    assert.doesNotMatch(await assign(byPod), /vmss/);
  });

  it('needs one for an identity without a type, which comes from the node', async () => {
    const untyped = { ...federated, type: undefined };
    const { stdout } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf({ [kinds.identities]: [createIdentity('orders', untyped)] }),
    );
    assert.match(stdout, /vmss/);
  });

  it('shows the gap in a command line', async () => {
    const nodes = [
      {
        metadata: { name: 'n' },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      },
    ];
    assert.match(
      (await play(['identity', 'assign', 'orders'], testBedOf({ nodes }))).stdout,
      /--identities '<resource id of the identity>'/,
    );
  });

  it('passes nothing of an object on to az that az would read as something else', async () => {
    const nodes = [
      {
        metadata: { name: 'n' },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      },
    ];
    const verbs = [
      ['identity', 'assign', 'orders', '--apply'],
      ['identity', 'federate', 'orders'],
      ['migrate', 'to-workload-identity', '--apply'],
      ['migrate', 'to-federation', '--tenant-id', tenant, '--apply'],
    ];
    const hostile = ['[system]', '@/etc/passwd', '--debug'];
    const specs = hostile.flatMap((text) => [
      { type: 0, clientID: clientA, resourceID: text },
      { type: 3, tenantID: tenant, clientID: text },
      { type: 3, tenantID: tenant, clientID: clientA, resourceID: text },
    ]);
    for (const spec of specs) {
      for (const words of verbs) {
        const az = createFakeAz();
        const testBed = testBedOf(
          { nodes, [kinds.identities]: [createIdentity('orders', spec)] },
          az,
        );
        const { stdout } = await play(words, testBed);
        const lines = [...az.lines, ...(stdout.match(/^(?:# )?az .*/gm) ?? [])].join('\n');
        for (const text of hostile) {
          assert.ok(!lines.includes(text), `${words.join(' ')}: ${lines}`);
        }
      }
    }
  });

  it('refuses values for az that are none', async () => {
    const nothing = testBedOf({ [kinds.bindings]: [] });
    const words = ['identity', 'federate', 'orders', '--service-account=@file'];
    const { code, stderr } = await play(words, nothing);
    assert.deepEqual([code, /"@file" cannot be the name of an object/.test(stderr)], [2, true]);
    const add = ['identity', 'add', 'new', '--resource-id', '[system]', '--client-id', clientA];
    assert.match((await play(add, nothing)).stderr, /is no Azure resource id/);
  });

  it('finds no identity with another name', async () => {
    const { code, stderr } = await play(['identity', 'assign', 'none'], testBedOf());
    assert.equal(code, 1);
    assert.match(
      stderr,
      /has no AzureIdentity none\nList those .*: kubectl nmi identity list -n shop\n/,
    );
    const slip = await play(['identity', 'assign', 'ordrs'], testBedOf());
    assert.match(slip.stderr, /has no AzureIdentity ordrs\nDid you mean orders\?\n/);
  });

  it('assigns to no machine that Karpenter made, which is gone tomorrow', async () => {
    const labels = { 'karpenter.sh/nodepool': 'default' };
    const idOf = (rest: string) =>
      `azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/${rest}`;
    const made = {
      metadata: { name: 'aks-default-x7', labels },
      spec: { providerID: idOf('virtualMachines/aks-default-x7') },
    };
    const fixed = {
      metadata: { name: 'n' },
      spec: { providerID: idOf('virtualMachineScaleSets/pool/virtualMachines/0') },
    };
    const { stdout } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf({ nodes: [made, fixed] }),
    );
    assert.equal(stdout.match(/^# az /gm)?.length, 1);
    assert.match(stdout, /^# az vmss identity assign .* --name pool /m);
    assert.match(
      stdout,
      /^# Azure assigns it to no node that Karpenter makes\. There, use type 3: kubectl nmi migrate to-federation orders -n shop /m,
    );
  });

  it('refuses a resource id of the object that is none', async () => {
    const spec = { type: 0, clientID: clientA, resourceID: '/subscriptions/x' };
    const { code, stderr } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf({ [kinds.identities]: [createIdentity('orders', spec)] }),
    );
    assert.equal(code, 1);
    assert.match(stderr, /^error: AzureIdentity orders has a spec\.resourceID that is no id of /);
  });

  it('shows the line for each scale set where no node is visible', async () => {
    const labels = { 'karpenter.sh/nodepool': 'default' };
    const made = testBedOf({ nodes: [{ metadata: { name: 'n', labels } }] });
    assert.match(
      (await play(['identity', 'assign', 'orders'], made)).stdout,
      /^# No other node of Azure is visible to you\. For each scale set: az vmss/m,
    );
    const { stdout } = await play(['identity', 'assign', 'orders'], testBedOf());
    assert.match(
      stdout,
      /^# No node of Azure is visible to you\. For each scale set: az vmss identity assign/m,
    );
    assert.match(
      stdout,
      /^# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants$/m,
    );
  });

  it('refuses invalid labels', async () => {
    assert.match(
      (await play(['identity', 'assign', 'orders', '--selector', 'a b'], testBedOf())).stderr,
      /cannot be the value of a label/,
    );
  });
});
