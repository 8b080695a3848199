import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { buildInfo } from '../../../src/nmi/base/build-info.ts';
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

describe('kubectl nmi migrate plan', () => {
  const old = createAgentPod('node-a', {
    image: 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17',
  });
  const stepsOf = async (pods: readonly object[]): Promise<readonly string[]> => {
    const { stdout } = await play(['migrate', 'plan', '-o', 'json'], testBedOf({ pods }));
    return (JSON.parse(stdout) as { steps: string[] }).steps;
  };
  /** As the chart names it below its repository. */
  const imageOfChart = async (): Promise<string> => {
    const chart = join(import.meta.dirname, '../../../deploy/chart/values.yaml');
    const values = parse(await readFile(chart, 'utf8')) as { nmi: { image: string } };
    return values.nmi.image;
  };

  it('removes the add-on', async () => {
    const { stdout } = await play(
      ['migrate', 'plan', '--resource-group', 'rg', '--cluster-name', 'c'],
      testBedOf({ pods: [old] }),
    );
    assert.match(
      stdout,
      /^1\. Save the objects: kubectl nmi migrate export-addon -A > pod-identity\.yaml\n/,
    );
    assert.match(stdout, /az aks update --resource-group rg --name c --disable-pod-identity/);
  });

  it('installs an image that can be pulled, and the agent is ready before the add-on goes', async () => {
    const steps = await stepsOf([old]);
    const at = (part: string) => steps.findIndex((step) => step.includes(part));
    const [, pulled = ''] = /--image=(\S+)/.exec(steps[at('--image=')] ?? '') ?? [];
    const [, repository = ''] = /image\.repository=(\S+)/.exec(steps[at('helm ')] ?? '') ?? [];
    assert.equal(pulled, `${repository}/${await imageOfChart()}:${buildInfo.version}`);
    const order = ['--image=', 'kubectl apply', 'helm ', 'status --wait', '--disable-pod-identity'];
    const places = order.map(at);
    assert.ok(!places.includes(-1), steps.join('\n'));
    assert.deepEqual(
      places.toSorted((one, other) => one - other),
      places,
    );
  });

  it('switches a helm release to an image that can be pulled', async () => {
    const labels = { component: 'nmi', 'app.kubernetes.io/managed-by': 'Helm' };
    const steps = await stepsOf([
      { ...old, metadata: { name: 'nmi-1', namespace: 'kube-system', labels } },
    ]);
    const at = (part: string) => steps.findIndex((step) => step.includes(part));
    const [, pulled] = /--image=(\S+)/.exec(steps[at('--image=')] ?? '') ?? [];
    const install = steps[at('helm upgrade')] ?? '';
    const valueOf = (key: string) => new RegExp(`${key}=(\\S+)`).exec(install)?.[1] ?? '';
    // The values of the old chart name its own image and tag.
    assert.equal(
      `${valueOf('image\\.repository')}/${valueOf('nmi\\.image')}:${valueOf('nmi\\.tag')}`,
      pulled,
    );
    assert.ok(at('--image=') < at('helm upgrade'));
    assert.match(install, /docs\/upgrade\.md/);
  });

  it('installs beside a helm release, and handles the MIC', async () => {
    const labels = { component: 'nmi', 'app.kubernetes.io/managed-by': 'Helm' };
    const pods = [
      { ...old, metadata: { name: 'nmi-1', namespace: 'kube-system', labels } },
      createPod('mic', { spec: { containers: [{ image: 'x/mic:v1' }] } }),
    ];
    const { stdout } = await play(['migrate', 'plan'], testBedOf({ pods }));
    assert.match(stdout, /^1\. The MIC runs/);
    assert.match(stdout, /nameOverride=entra-pod-identity/);
    assert.doesNotMatch(stdout, /disable-pod-identity/);
  });
});
