/** The plugin's verbs one after another, as users type them, on real servers with the real kubectl. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { readOldDefinitions } from '../cluster/support/go-module.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { createFakeAz, ordersId } from './support/fake-az.ts';
import { agent, agentSet, clientId, good, grant, pod } from './support/mistakes.ts';
import { clearObjects, developerRole, putObjects } from './support/put-objects.ts';
import { runOn, type RealMachine } from './support/real-kubectl.ts';

const root = join(import.meta.dirname, '../..');
const agentId = '0a1b2c3d-0000-4000-8000-000000000003';
const owner =
  ', ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: web-7d4b9, uid: 7e570000-1ab0-4000-8000-000000000009 }]';
const deployment = `---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: app, image: app }] } }
`;

describeOnNewestVersion('kubectl nmi', (cluster) => {
  let machine: RealMachine;
  const run = (words: readonly string[], as: Partial<RealMachine> = {}) =>
    runOn({ ...machine, ...as }, words);

  before(async () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    machine = { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().applyOverHttp(agentSet);
  });

  const clear = () => clearObjects(cluster());

  it('fails clearly in a cluster without the kinds', async () => {
    const { code, stdout, stderr } = await run(['explain', 'pod', 'web', '-n', 'shop']);
    assert.deepEqual([code, stdout], [1, '']);
    assert.equal(
      stderr,
      'error: cannot list azureidentities.aadpodidentity.k8s.io in namespace shop: the server does not have this kind of object\nInstall the custom resource definitions: kubectl apply -f deploy/crds.yaml\n',
    );
    assert.match((await run(['doctor', '--pre'])).stdout, /crd_missing/);
  });

  it('finds definitions of the old system', async () => {
    await cluster().apply(readOldDefinitions());
    const { stdout } = await run(['doctor', '--pre']);
    assert.match(stdout, /azureidentities\.aadpodidentity\.k8s\.io: crd_old/);
    // The old system has no grants.
    assert.deepEqual(stdout.match(/(?<=Definition )\w+(?=\S*: crd_missing)/g), [
      'azureidentitygrants',
    ]);
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
  });

  it('names an identity that no grant gives to its namespace, once the cluster has grants', async () => {
    await clear();
    await putObjects(cluster(), good);
    const explained = async () => (await run(['explain', 'pod', 'web', '-n', 'shop'])).stdout;
    const finding = /Findings:\ninfo {4}AzureIdentity shop\/orders: identity_not_owned/;
    assert.doesNotMatch(await explained(), finding);
    await cluster().apply(grant.replaceAll('shop', 'other'));
    assert.match(await explained(), finding);
    await cluster().apply(grant);
    assert.doesNotMatch(await explained(), finding);
  });

  it('names the pod or the namespace that may be meant', async () => {
    await clear();
    const ofDeployment = pod({ name: 'web-7d4b9-x', labels: 'app: web', owner });
    await putObjects(cluster(), ofDeployment + deployment);
    const missed = async (...words: readonly string[]) => {
      const { code, stdout, stderr } = await run(['explain', 'pod', ...words]);
      assert.deepEqual([code, stdout], [1, '']);
      return stderr;
    };
    assert.equal(
      await missed('web', '-n', 'shop'),
      'error: namespace shop has no pod web; there is a Deployment of that name\nName one of its pods: web-7d4b9-x\n',
    );
    assert.equal(
      await missed('web-7d4b8-x', '-n', 'shop'),
      'error: namespace shop has no pod web-7d4b8-x\nDid you mean web-7d4b9-x?\n',
    );
    assert.equal(
      await missed('web', '-n', 'shpo'),
      'error: namespace shpo does not exist\nCheck -n and the context: kubectl get namespaces\n',
    );
  });

  it('needs get and list of pods and of the three kinds, and names the rest', async () => {
    await clear();
    await putObjects(cluster(), good);
    await cluster().apply(developerRole);
    await using developer = await cluster().createServiceAccountClient({
      namespace: 'shop',
      name: 'developer',
    });
    const as = { kubeconfig: developer.kubeconfigPath };
    const { code, stdout } = await run(['explain', 'pod', 'web', '-n', 'shop', '--exit-code'], as);
    assert.equal(code, 0);
    assert.match(stdout, /^pod shop\/web: GRANTED/);
    assert.match(
      stdout,
      /^ {2}Not checked \(5; -v shows why\): assignment of the identity in Azure; identity grants; refusals of the last hour; network policies; options and state of the agents\. A token shows it: kubectl nmi test --pod web -n shop$/m,
    );
    const other = await run(['explain', 'pod', 'web', '-n', 'other'], as);
    assert.equal(other.code, 77);
    assert.equal(
      other.stderr,
      'error: cannot get pod other/web: Error from server (Forbidden): pods "web" is forbidden: User "system:serviceaccount:shop:developer" cannot get resource "pods" in API group "" in the namespace "other"\nAsk for this RBAC rule: apiGroups: [""], resources: ["pods"], verbs: ["get"] in namespace other\n',
    );
    assert.equal((await run(['analyze', '-A'], as)).code, 77);
  });

  it('fails clearly without a configuration, a context, or a server', async () => {
    const explain = ['explain', 'pod', 'web', '-n', 'shop'];
    const none = await run(explain, { kubeconfig: join(cluster().folder, 'none') });
    assert.equal(none.code, 2);
    assert.match(
      none.stderr,
      /kubectl has no usable configuration.*\nSet KUBECONFIG or --kubeconfig/,
    );
    const context = await run([...explain, '--context', 'prod']);
    assert.equal(context.code, 2);
    assert.match(context.stderr, /context.*prod/);
    const path = join(cluster().folder, 'unreachable');
    writeFileSync(
      path,
      readFileSync(machine.kubeconfig, 'utf8').replace(/https:\/\/[^"]+/, 'https://127.0.0.1:9'),
    );
    const unreachable = await run(explain, { kubeconfig: path });
    assert.equal(unreachable.code, 69);
    assert.doesNotMatch(unreachable.stderr, /\n\s+at |E\d{4}/);
    assert.equal((await run(explain, { kubectl: '/no/such/kubectl' })).code, 69);
  });

  it('runs a whole quick start: identity and binding', async () => {
    await clear();
    await putObjects(cluster(), pod() + agent());
    const az = createFakeAz();
    const type = async (...words: readonly string[]) => {
      const { code, stdout, stderr } = await run([...words, '-n', 'shop'], { az });
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
      return stdout;
    };
    const ids = ['--resource-id', ordersId, '--client-id', clientId];
    await type('identity', 'add', 'orders', ...ids, '--apply');
    await type('identity', 'assign', 'orders', '--apply');
    assert.match(await type('explain', 'pod', 'web', '--exit-code'), /^pod shop\/web: GRANTED/);
    const blueprint = ['--type', 'chain', '--federation', 'pod', '--application', clientId];
    const agentIdentity = ['--agent-identity', agentId, '--tenant-id', 'contoso.example'];
    await type('identity', 'add', 'agent', ...blueprint, ...agentIdentity, '--apply');
    assert.match(
      await type('identity', 'list'),
      new RegExp(`^shop +agent +chain +${agentId} `, 'm'),
    );
    assert.deepEqual(az.lines, []);
  });

  it('runs a whole migration off the add-on, and then to Workload Identity', async () => {
    await clear();
    await putObjects(cluster(), good);
    const type = async (...words: readonly string[]) => {
      const { code, stdout, stderr } = await run(words);
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
      return stdout;
    };
    const exported = await type('migrate', 'export-addon', '-A');
    assert.doesNotMatch(exported, /managedFields|resourceVersion|uid|creationTimestamp/);
    // What AKS does with the objects of the add-on.
    await clear();
    await putObjects(cluster(), pod() + agent());
    await cluster().apply(exported);
    assert.match(await type('explain', 'pod', 'web', '-n', 'shop', '--exit-code'), /GRANTED/);
    assert.match(
      await type('analyze', '-A', '--exit-code', '--threshold', 'warning'),
      /^0 errors, 0 warnings/,
    );
    await type('migrate', 'to-workload-identity', '-n', 'shop', '--apply');
    const account = await cluster().admin.expect(
      'GET',
      '/api/v1/namespaces/shop/serviceaccounts/default',
    );
    assert.match(JSON.stringify(account.metadata), new RegExp(`client-id":"${clientId}`));
  });
});
