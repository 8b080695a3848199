import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { createFakeAz, ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  createIdentity,
  failed,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const nodes = [
  {
    metadata: { name: 'n' },
    spec: {
      providerID:
        'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
    },
  },
];
const clientID = '431054d5-1b5d-4836-8331-11abcaa2c1d8';

function testBedOf(
  az = createFakeAz({ identities: {} }),
  kubectl = ok('azureidentitybinding configured\n'),
): Recorded {
  return {
    ...boundTestBed({
      nodes,
      [kinds.identities]: [createIdentity('orders', { type: 0, clientID, resourceID: ordersId })],
    }),
    other: (program, args) => (program === 'az' ? az.run(args) : kubectl),
  };
}

const programsOf = (calls: readonly (readonly string[])[]) =>
  calls.map((words) => words.slice(0, 2).join(' '));

describe('a plan', () => {
  it('is shown by default: YAML for kubectl, the rest as comments', async () => {
    const { stdout, calls } = await play(['identity', 'assign', 'orders'], testBedOf());
    assert.deepEqual(calls, []);
    assert.equal(
      stdout,
      `apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata:
  name: orders
  namespace: shop
spec:
  azureIdentity: orders
  selector: orders
# Pods get it by the label aadpodidbinding=orders in their template.
# az vmss identity assign --subscription s --resource-group rg --name pool --identities ${ordersId}
`,
    );
  });

  it('has no YAML line injected by the text of an object', async () => {
    const az = createFakeAz({ identities: {} });
    const hostile = `${ordersId}\n---\napiVersion: v1\nkind: Secret\rx: y\u0085z: a\n# `;
    const testBed = {
      ...testBedOf(az),
      objects: {
        ...testBedOf(az).objects,
        [kinds.identities]: [createIdentity('orders', { type: 0, clientID, resourceID: hostile })],
      },
    };
    const { stdout } = await play(['identity', 'assign', 'orders'], testBed);
    assert.equal(parseAllDocuments(stdout).length, 1);
    assert.match(stdout, /^# az vmss .*apiVersion: v1.*$/m);
    assert.doesNotMatch(stdout, /^(?:---|apiVersion: v1)$|\r|\u0085/m);
  });

  it('is executed: Azure before objects that need it', async () => {
    const az = createFakeAz({ identities: {} });
    const { code, stdout, calls, inputs } = await play(
      ['identity', 'assign', 'orders', '--apply', '--run'],
      testBedOf(az),
    );
    assert.equal(code, 0);
    assert.deepEqual(programsOf(calls), ['az vmss', 'kubectl apply']);
    assert.match(inputs[1] ?? '', /^apiVersion: aadpodidentity/);
    assert.match(
      stdout,
      /^# az vmss identity assign .*\nazureidentitybinding configured\n# Pods get it/,
    );
    assert.deepEqual([...(az.assigned.get('pool') ?? [])], [ordersId]);
  });

  it('removes objects before Azure', async () => {
    const { calls } = await play(
      ['identity', 'unassign', 'orders', '--apply', '--run'],
      testBedOf(),
    );
    assert.deepEqual(programsOf(calls), ['kubectl delete', 'az vmss']);
  });

  it('stops at the first failure, with nothing after it', async () => {
    const refused = createFakeAz({ identities: {}, refused: 'vmss identity assign' });
    const first = await play(
      ['identity', 'assign', 'orders', '--apply', '--run'],
      testBedOf(refused),
    );
    assert.equal(first.code, 77);
    assert.match(
      first.stderr,
      /az has no right[^]*Have somebody with the right run: az vmss identity assign/,
    );
    assert.deepEqual(programsOf(first.calls), ['az vmss']);
    const denied = failed(
      'Error from server (Forbidden): x cannot create resource "azureidentitybindings" in API group "aadpodidentity.k8s.io" in the namespace "shop"',
    );
    const second = await play(
      ['identity', 'assign', 'orders', '--apply'],
      testBedOf(undefined, denied),
    );
    assert.equal(second.code, 77);
    assert.match(second.stderr, /verbs: \["create"\] in namespace shop/);
  });

  it('is one document in JSON, whatever commands it runs', async () => {
    const { stdout } = await play(
      ['identity', 'assign', 'orders', '--apply', '--run', '-o', 'json'],
      testBedOf(),
    );
    const { done, az } = JSON.parse(stdout) as { done: object; az: string[][] };
    assert.deepEqual(done, { objects: true, az: true });
    assert.equal(az[0]?.[0], 'vmss');
    assert.match(
      (await play(['identity', 'assign', 'orders', '-o', 'yaml'], testBedOf())).stdout,
      /^objects:\n/,
    );
  });
});
