/**
 * The user of one namespace creates a pod that looks like an agent, on a real API server with its
 * rules for users. No verb of an administrator may run it, trust it, enter it or read it.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { Api } from '../cluster/support/api.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { deletePod, setPodStatus } from '../cluster/support/pods.ts';
import { createFakeAz, ordersId, tenant } from './support/fake-az.ts';
import { agentSet, clientId } from './support/mistakes.ts';
import { runOn, type RealMachine } from './support/real-kubectl.ts';

const root = join(import.meta.dirname, '../..');
const labels = { component: 'nmi', tier: 'node' };
const evil = 'evil.example/steal:1';
const agentImage = 'example/entra-pod-identity:0.1.0';

const objects = `
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { aadpodidbinding: orders } }
spec: { nodeName: node-1, serviceAccountName: robot, containers: [{ name: app, image: app }] }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: shop }
spec: { type: 3, clientID: ${clientId}, tenantID: ${tenant}, resourceID: ${ordersId}, federation: node }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: orders, namespace: shop }
spec: { azureIdentity: orders, selector: orders }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: user, namespace: attack }
rules: [{ apiGroups: [''], resources: [pods], verbs: [create, get, list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: user, namespace: attack }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: user }
subjects: [{ kind: ServiceAccount, name: mallory, namespace: attack }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: viewer }
rules:
  - { apiGroups: [''], resources: [pods], verbs: [get, list] }
  - { apiGroups: [aadpodidentity.k8s.io], resources: ['*'], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: viewer }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer }
subjects: [{ kind: ServiceAccount, name: viewer, namespace: shop }]
`;

/** As like an agent as its author can make it: label, node, name, and the owner's own uid. */
async function createPod(
  api: Api,
  place: { readonly namespace: string; readonly name: string },
  pod: { readonly image: string; readonly account: string; readonly uid?: string },
): Promise<number> {
  const { image, account, uid } = pod;
  const owner = { apiVersion: 'apps/v1', kind: 'DaemonSet', name: 'nmi', uid, controller: true };
  const { status } = await api.request('POST', `/api/v1/namespaces/${place.namespace}/pods`, {
    metadata: {
      name: place.name,
      labels,
      ...(uid === undefined ? {} : { ownerReferences: [owner] }),
    },
    spec: {
      nodeName: 'node-1',
      serviceAccountName: account,
      containers: [{ name: 'nmi', image, args: ['--cloud=china', '--entra-audience=evil'] }],
    },
  });
  return status;
}

describeOnNewestVersion('kubectl nmi beside hostile pods', (cluster) => {
  let machine: RealMachine;
  let calls: string[] = [];
  const run = async (words: readonly string[], as: Partial<RealMachine> = {}) => {
    calls = [];
    const onCall = (args: readonly string[], input: string) =>
      calls.push(`${args.join(' ')}\n${input}`);
    const az = createFakeAz();
    return runOn({ ...machine, az, onCall, ...as }, [...words, '-n', 'shop']);
  };
  const kube = { namespace: 'kube-system', name: 'nmi-x7k2p' };

  before(async () => {
    const { binaries, adminKubeconfig, folder, admin } = cluster();
    machine = { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
    for (const name of ['attack', 'shop', 'kube-system']) await cluster().createNamespace(name);
    const made = [
      ['shop', 'robot'],
      ['kube-system', 'agent'],
      ['attack', 'thief'],
    ] as const;
    for (const [namespace, name] of made) {
      await using _ = await cluster().createServiceAccountClient({ namespace, name });
    }
    const [set] = await cluster().applyOverHttp(agentSet);
    await cluster().applyOverHttp(objects);
    const uid = String(set?.metadata.uid);
    await using mallory = await cluster().createServiceAccountClient({
      namespace: 'attack',
      name: 'mallory',
    });
    const forged = { image: evil, account: 'thief' };
    const own = { namespace: 'attack', name: 'nmi-aaaaa' };
    assert.equal(await createPod(mallory.api, own, { ...forged, uid }), 201);
    assert.equal(await createPod(mallory.api, { ...kube, name: 'nmi-aaaaa' }, forged), 403);
    // Of somebody with a right in the agents' namespace that is not for its DaemonSets.
    const near = { ...kube, name: 'nmi-aaaaa' };
    assert.equal(await createPod(admin, near, { image: evil, account: 'default' }), 201);
    assert.equal(await createPod(admin, kube, { image: agentImage, account: 'agent', uid }), 201);
    const status = { phase: 'Running', podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }] };
    for (const place of [own, near, kube]) await setPodStatus(admin, place, status);
  });

  /** @returns calls that reach into a pod, or make one. */
  const reaching = () => calls.filter((text) => /^exec |^create |\/proxy\/|^logs /.test(text));

  it('test runs the agent’s image', async () => {
    const { stderr } = await run(['test', '--pod', 'web', '--timeout', '1']);
    const [made = ''] = calls.filter((text) => text.startsWith('create '));
    assert.match(made, /serviceAccountName: robot/);
    assert.match(made, new RegExp(`image: ${agentImage}`));
    assert.doesNotMatch(made, /evil/);
    assert.match(
      stderr,
      /^warning: ignored pods labelled component=nmi .*: 1 in attack, 1 in kube-system\. Agents in another namespace need --agent-namespace\.\npod nmi-test-\w+ is created in context \w+, namespace shop, and deleted at the end\n$/,
    );
    const { items } = await cluster().admin.expect('GET', '/api/v1/namespaces/shop/pods');
    const left = (items as readonly { metadata: Record<string, unknown> }[]).filter(
      ({ metadata }) => metadata['name'] !== 'web' && metadata['deletionTimestamp'] === undefined,
    );
    assert.deepEqual(left, []);
  });

  it('identity federate trusts the agent’s account', async () => {
    const { code, stdout } = await run(['identity', 'federate', 'orders']);
    assert.equal(code, 0);
    assert.match(stdout, /subject system:serviceaccount:kube-system:agent\n/);
    assert.doesNotMatch(stdout, /attack|thief|kube-system:default/);
  });

  it('sysdump enters the agent alone, and reads its page alone', async () => {
    await run(['sysdump']);
    const entered = reaching().filter((text) => text.startsWith('exec '));
    assert.equal(entered.length, 1);
    assert.match(entered[0] ?? '', /^exec --namespace=kube-system nmi-x7k2p /);
    for (const text of reaching()) assert.match(text, /kube-system.*nmi-x7k2p/);
  });

  it('a user who may not read DaemonSets runs, trusts and enters nothing', async () => {
    await using viewer = await cluster().createServiceAccountClient({
      namespace: 'shop',
      name: 'viewer',
    });
    const as = { kubeconfig: viewer.kubeconfigPath };
    const tested = await run(['test', '--pod', 'web'], as);
    assert.equal(tested.code, 2);
    assert.match(
      tested.stderr,
      /^warning: cannot verify the agents: .* Ask for this RBAC rule: apiGroups: \["apps"\], resources: \["daemonsets"\], verbs: \["list"\] in namespace kube-system$/m,
    );
    assert.deepEqual(reaching(), []);
    assert.equal((await run(['identity', 'federate', 'orders'], as)).code, 2);
    assert.deepEqual(reaching(), []);
    await run(['sysdump'], as);
    assert.ok(reaching().every((text) => !text.startsWith('exec ')));
  });

  describe('without an agent', () => {
    before(async () => {
      await deletePod(cluster().admin, kube);
    });

    it('nothing takes its place', async () => {
      const tested = await run(['test', '--pod', 'web']);
      assert.equal(tested.code, 2);
      assert.match(tested.stderr, /no verified agent is visible to you in namespace kube-system/);
      const federated = await run(['identity', 'federate', 'orders']);
      assert.deepEqual([federated.code, federated.stdout], [2, '']);
      await run(['sysdump']);
      assert.deepEqual(reaching(), []);
    });
  });
});
