import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { createFakeAz, ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  createBinding,
  createIdentity,
  createObject,
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
  az = createFakeAz(),
  kubectl = ok('azureidentitybinding created\n'),
  changes: Recorded['objects'] = { [kinds.bindings]: [] },
): Recorded {
  return {
    ...boundTestBed({
      nodes,
      [kinds.identities]: [createIdentity('orders', { type: 0, clientID, resourceID: ordersId })],
      ...changes,
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
      `# In context dev, namespace shop:
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata:
  name: orders
  namespace: shop
spec:
  azureIdentity: orders
  selector: orders
# Pods get it by the label aadpodidbinding=orders in their template.
# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants
# az vmss identity assign --subscription s --resource-group rg --name pool --identities ${ordersId}
`,
    );
  });

  it('names its cluster also when it has one line only', async () => {
    const existing = { [kinds.bindings]: [createBinding('orders')] };
    const { stdout } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf(undefined, undefined, existing),
    );
    assert.match(stdout, /^# In context dev, namespace shop:\n(?:# (?!az ).*\n)*# az .*\n$/);
  });

  it('has no YAML line injected by the text of an object', async () => {
    const hostile = `orders\n---\napiVersion: v1\nkind: Secret\rx: y\u0085z: a\n# `;
    const annotations = { 'azure.workload.identity/client-id': hostile };
    const { stdout } = await play(
      ['migrate', 'to-workload-identity'],
      testBedOf(undefined, ok('{"issuer":"https://oidc.example/"}'), {
        serviceaccounts: [createObject('ServiceAccount', 'default', {}, { annotations }, 'v1')],
      }),
    );
    assert.equal(parseAllDocuments(stdout).length, 0);
    assert.match(stdout, /^# Service account shop\/default is left out: .*apiVersion: v1.*$/m);
    assert.doesNotMatch(stdout, /^(?:---|apiVersion: v1)$|\r|\u0085/m);
  });

  it('is executed with --apply, in the cluster and not in Azure', async () => {
    const az = createFakeAz();
    const { code, stdout, calls, inputs } = await play(
      ['identity', 'assign', 'orders', '--apply'],
      testBedOf(az),
    );
    assert.equal(code, 0);
    assert.deepEqual([programsOf(calls), az.lines], [['kubectl create'], []]);
    assert.match(inputs[0] ?? '', /^apiVersion: aadpodidentity/);
    assert.match(
      stdout,
      /^# In context .*\n# az vmss identity assign .*\nazureidentitybinding created\n$/s,
    );
  });

  it('ends with the failure of kubectl', async () => {
    const denied = failed(
      'Error from server (Forbidden): x cannot create resource "azureidentitybindings" in API group "aadpodidentity.k8s.io" in the namespace "shop"',
    );
    const { code, stderr } = await play(
      ['identity', 'assign', 'orders', '--apply'],
      testBedOf(undefined, denied),
    );
    assert.equal(code, 77);
    assert.match(stderr, /verbs: \["create"\] in namespace shop/);
  });

  it('is one document in JSON, whatever commands it runs', async () => {
    const { stdout } = await play(
      ['identity', 'assign', 'orders', '--apply', '-o', 'json'],
      testBedOf(),
    );
    const { done, az } = JSON.parse(stdout) as { done: boolean; az: string[][] };
    assert.deepEqual([done, az[0]?.[0]], [true, 'vmss']);
    assert.match(
      (await play(['identity', 'assign', 'orders', '-o', 'yaml'], testBedOf())).stdout,
      /^target: context dev, namespace shop\nobjects:\n/,
    );
  });

  it('creates what is not there, and overwrites nothing', async () => {
    const words = ['identity', 'assign', 'orders', '--selector', 'web', '--apply'];
    const other = testBedOf(undefined, undefined, { [kinds.bindings]: [createBinding('orders')] });
    const { code, stderr, calls } = await play(words, other);
    assert.deepEqual([code, calls], [1, []]);
    assert.equal(
      stderr,
      'error: AzureIdentityBinding shop/orders exists; its spec.selector is "orders", and would be "web"\nChoose another name, or change it yourself: kubectl --context=dev -n shop edit azureidentitybindings.aadpodidentity.k8s.io orders\n',
    );
    const limited = { azureIdentity: 'orders', selector: 'web', serviceAccount: 'robot' };
    const narrower = testBedOf(undefined, undefined, {
      [kinds.bindings]: [createBinding('orders', limited)],
    });
    assert.match((await play(words, narrower)).stderr, /is "robot", and would be not set/);
    const blind = { ...testBedOf(), forbidden: { [kinds.bindings]: 'all-namespaces' } } as const;
    assert.equal((await play(words, blind)).code, 0);
  });

  it('names the user’s own connection in every command', async () => {
    const words = ['migrate', 'to-workload-identity', '--context', 'prod', '--as', 'a b'];
    const issuer = ok('{"issuer":"https://oidc.example/"}');
    const { stdout } = await play(words, testBedOf(undefined, issuer, {}));
    assert.match(stdout, /^# kubectl --context=dev '--as=a b' annotate serviceaccount default/m);
  });
});
