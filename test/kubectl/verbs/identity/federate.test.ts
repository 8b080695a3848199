import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createFakeAz, ordersId, tenant } from '../../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../support/recorded-kubectl.ts';

const issuer = ok('{"issuer":"https://oidc.example/1/"}');
const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };

function testBedOf(changes = {}, az = createFakeAz()): Recorded {
  return {
    ...boundTestBed(changes),
    other: (program, args) => (program === 'az' ? az.run(args) : issuer),
  };
}

describe('kubectl nmi identity federate', () => {
  const testBed = (
    spec: object = federated,
    pods = [
      createPod('web', {
        labels: { aadpodidbinding: 'orders' },
        spec: { serviceAccountName: 'robot' },
      }),
    ],
  ) =>
    testBedOf({
      pods: [...pods, createAgentPod('node-1', { args: ['--cloud=usgovernment'] })],
      [kinds.identities]: [createIdentity('orders', spec)],
    });

  it('has a command line for each service account of the bound pods', async () => {
    const { stdout } = await play(['identity', 'federate', 'orders'], testBed());
    assert.match(
      stdout,
      /# subject system:serviceaccount:shop:robot\n[^]*# az identity federated-credential create --name shop-robot-\w+ .*--issuer https:\/\/oidc\.example\/1\/ .*--audiences api:\/\/AzureADTokenExchangeUSGov\n/,
    );
  });

  it('has the credential by which an application trusts the managed identity of a chain', async () => {
    const application = { tenantID: tenant, clientID: clientB };
    const byResource = { type: 4, resourceID: ordersId, application };
    const { stdout } = await play(['identity', 'federate', 'orders'], testBed(byResource));
    assert.match(stdout, /az identity show --ids \S+ --query .*PRINCIPAL_ID:principalId/);
    assert.match(
      stdout,
      new RegExp(
        `az ad app federated-credential create --id ${clientB} .*microsoftonline\\.us/TENANT.*USGov`,
      ),
    );
    assert.doesNotMatch(stdout, /system:serviceaccount/);
    // az replaces a credential of the same name, and other clusters have the same names of objects.
    assert.match(stdout, /"name":"shop-orders-[0-9a-f]{16}"/);
    const json = await play(['identity', 'federate', 'orders', '-o', 'json'], testBed(byResource));
    assert.equal((JSON.parse(json.stdout) as { done: boolean }).done, false);
    const byClient = { type: 4, clientID: clientA, application };
    const found = await play(['identity', 'federate', 'orders'], testBed(byClient));
    assert.ok(found.stdout.includes(`[?clientId=='${clientA}']`), found.stdout);
  });

  it('is for the service accounts that the blueprint of a chain trusts', async () => {
    const application = { tenantID: tenant, clientID: clientB };
    const chain = { type: 4, federation: 'pod', application, agentIdentity: clientA };
    const { stdout } = await play(['identity', 'federate', 'orders'], testBed(chain));
    const line = `az ad app federated-credential create --id ${clientB} .*system:serviceaccount:shop:robot`;
    assert.match(stdout, new RegExp(line));
  });

  it('is for the default account of a pod that names none, and changes nothing itself', async () => {
    const labels = { aadpodidbinding: 'orders' };
    const pods = [createPod('web', { labels, spec: { serviceAccountName: '' } })];
    const words = ['identity', 'federate', 'orders', '-o', 'json'];
    const { stdout } = await play(words, testBed(federated, pods));
    const { done, notes } = JSON.parse(stdout) as { done: boolean; notes: readonly string[] };
    assert.equal(done, false);
    assert.ok(notes.includes('subject system:serviceaccount:shop:default'), stdout);
  });

  it('accepts names if there are no pods yet, and warns of too many', async () => {
    const none = await play(['identity', 'federate', 'orders'], testBed(federated, []));
    assert.equal(none.code, 2);
    assert.match(none.stderr, /no service account is known/);
    const many = Array.from({ length: 21 }, (_, index) => `--service-account=a${index}`);
    assert.match(
      (await play(['identity', 'federate', 'orders', ...many], testBed())).stdout,
      /^# 21 service accounts, and Azure allows 20 federated/m,
    );
  });

  it('is for the agent’s account if the identity specifies node', async () => {
    const { stdout } = await play(
      ['identity', 'federate', 'orders'],
      testBed({ ...federated, federation: 'node' }),
    );
    assert.match(stdout, /subject system:serviceaccount:kube-system:default/);
    const elsewhere = await play(
      ['identity', 'federate', 'orders', '--agent-namespace', 'agents'],
      testBed({ ...federated, federation: 'node' }),
    );
    assert.equal(elsewhere.code, 2);
    assert.match(
      elsewhere.stderr,
      /no verified agent is in namespace agents, so .*\nAgents in another namespace need --agent-namespace/,
    );
  });

  it('is a ClusterRole and a line of az aks if the identity specifies binding', async () => {
    const spec = { ...federated, federation: 'binding' };
    const { code, stdout, calls } = await play(['identity', 'federate', 'orders'], testBed(spec));
    assert.deepEqual([code, calls], [0, []], 'it changes nothing itself');
    assert.match(stdout, /^kind: ClusterRoleBinding$[^]*^ {2}- kind: ServiceAccount$/m);
    const line = `az aks identity-binding create --resource-group CLUSTER_RESOURCE_GROUP --cluster-name CLUSTER --name orders --managed-identity-resource-id ${ordersId}`;
    assert.ok(stdout.includes(`# ${line}\n`), stdout);
  });

  it('needs an issuer that Entra ID can read', async () => {
    const { code, stderr } = await play(['identity', 'federate', 'orders'], {
      ...testBed(),
      other: () => ok('{"issuer":"kubernetes.default.svc"}'),
    });
    assert.equal(code, 1);
    assert.equal(
      stderr,
      'error: the cluster has no issuer that Entra ID could read\nFor AKS: az aks update --enable-oidc-issuer\n',
    );
  });
});
