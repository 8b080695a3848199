/**
 * Verbs that write, on a real server: a second namespace, objects of a second owner, and a second
 * context, to which another program switches while the verb runs, stay as they were.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, beforeEach, describe, it } from 'node:test';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { createFakeAz, ordersId } from './support/fake-az.ts';
import { agent, agentSet, agentSetUid, clientId } from './support/mistakes.ts';
import { runOn } from './support/real-kubectl.ts';

const namespaces = ['shop', 'other'] as const;
const kinds = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'] as const;
const pathOf = (namespace: string, kind: string) =>
  `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}/${kind}`;

/** What another program, as Argo CD, declares in both namespaces. */
const declared = namespaces
  .map(
    (namespace) => `---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: orders, namespace: ${namespace} }
spec: { type: 0, clientID: ${clientId}, resourceID: ${ordersId} }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: declared, namespace: ${namespace} }
spec: { azureIdentity: orders, selector: orders }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzurePodIdentityException
metadata: { name: proxy, namespace: ${namespace} }
spec: { podLabels: { app: proxy } }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: ${namespace}, labels: { aadpodidbinding: orders } }
spec: { containers: [{ name: web, image: web }] }
`,
  )
  .join('');

/** Without it `migrate to-federation --apply` refuses. */
const rightOfAgents = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: tokens-of-accounts }
rules: [{ apiGroups: [''], resources: [serviceaccounts/token], verbs: [create] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: tokens-of-accounts }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tokens-of-accounts }
subjects: [{ kind: ServiceAccount, namespace: kube-system, name: default }]
`;

describeOnNewestVersion('verbs that write', (cluster) => {
  let kubeconfig: string;

  before(async () => {
    for (const name of [...namespaces, 'kube-system']) await cluster().createNamespace(name);
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().apply(readFileSync(crds, 'utf8'));
    await cluster().applyOverHttp(agentSet);
    const set = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';
    const { metadata } = await cluster().admin.expect('GET', set);
    await cluster().applyOverHttp(agent().replaceAll(agentSetUid, metadata.uid) + rightOfAgents);
    kubeconfig = join(cluster().folder, 'two-contexts');
    copyFileSync(cluster().adminKubeconfig, kubeconfig);
    for (const name of namespaces) {
      config('set-context', name, '--cluster=test', '--user=test', `--namespace=${name}`);
    }
  });

  beforeEach(async () => {
    for (const namespace of namespaces) {
      for (const kind of kinds) await cluster().admin.expect('DELETE', pathOf(namespace, kind));
    }
    await cluster().applyOverHttp(declared);
    config('use-context', 'shop');
  });

  function config(...words: readonly string[]): void {
    const env = { KUBECONFIG: kubeconfig, PATH: process.env['PATH'] };
    execFileSync(cluster().binaries.kubectl, ['config', ...words], { env, stdio: 'pipe' });
  }

  /** Every object of both namespaces that a verb might write. */
  async function everything(): Promise<ReadonlyMap<string, unknown>> {
    const paths = namespaces.flatMap((namespace) => [
      ...kinds.map((kind) => pathOf(namespace, kind)),
      ...['serviceaccounts', 'pods', 'secrets'].map(
        (kind) => `/api/v1/namespaces/${namespace}/${kind}`,
      ),
    ]);
    const entries = paths.map(async (path) => {
      const { items } = await cluster().admin.expect('GET', path);
      return (items ?? []).map((each) => [`${path}/${each.metadata.name}`, each] as const);
    });
    return new Map((await Promise.all(entries)).flat());
  }

  /** In the namespace of the context, which another program switches after the first call. */
  function run(words: readonly string[]) {
    const { binaries, folder } = cluster();
    let calls = 0;
    const onCall = () => {
      calls++;
      if (calls === 2) config('use-context', 'other');
    };
    return runOn({ kubectl: binaries.kubectl, kubeconfig, home: folder, onCall }, words);
  }

  /** Names of the objects that the command created, changed or deleted. */
  async function changedBy(words: readonly string[], expectedCode = 0) {
    const then = await everything();
    const { code, stdout, stderr } = await run(words);
    assert.equal(code, expectedCode, `${words.join(' ')}: ${stderr}`);
    const now = await everything();
    const names = [...new Set([...then.keys(), ...now.keys()])].filter(
      (path) => JSON.stringify(then.get(path)) !== JSON.stringify(now.get(path)),
    );
    return { names: names.map((path) => path.replace(/^.*namespaces\//, '')), stdout, stderr };
  }

  it('shows the commands with the context that they are for', async () => {
    const { names, stdout } = await changedBy(['migrate', 'to-workload-identity']);
    assert.deepEqual(names, []);
    assert.match(
      stdout,
      /^# kubectl --context=shop annotate serviceaccount default --namespace=shop /m,
    );
  });

  const verbs: readonly (readonly [words: string, changes: readonly string[]])[] = [
    [
      `identity add mine --client-id ${clientId} --resource-id ${ordersId} --apply`,
      ['shop/azureidentities/mine'],
    ],
    ['identity assign orders --selector mine --apply', ['shop/azureidentitybindings/orders']],
    ['migrate to-workload-identity --apply', ['shop/serviceaccounts/default']],
    ['identity federate orders', []],
    ['migrate to-federation --tenant-id contoso.example', []],
    ['migrate to-federation --tenant-id contoso.example --apply', ['shop/azureidentities/orders']],
  ];
  for (const [words, changes] of verbs) {
    it(`changes one object of one namespace: ${words.slice(0, 40)}`, async () => {
      const { names, stdout } = await changedBy(words.split(' '));
      assert.deepEqual(names, changes);
      assert.match(stdout, /^# In context shop, namespace shop:$/m);
      assert.doesNotMatch(stdout, /context[ =]other/);
    });
  }

  it('pass on to az no stored value that az would read as a file, a flag or itself', async () => {
    for (const hostile of ['[system]', '@/etc/passwd', '--debug']) {
      // Of etcd: the definitions refuse some of these today.
      const spec = { resourceID: hostile, clientID: hostile };
      const kind = 'aadpodidentity.k8s.io/azureidentities';
      await cluster().copy(kind, 'shop', 'orders', [{ name: 'orders', spec }]);
      const path = `${pathOf('shop', 'azureidentities')}/orders`;
      const { spec: stored } = await cluster().admin.expect('GET', path);
      assert.ok(JSON.stringify(stored).includes(`"resourceID":${JSON.stringify(hostile)}`));
      for (const words of [
        'identity assign orders',
        'identity federate orders',
        'migrate to-federation --tenant-id contoso.example',
      ]) {
        const az = createFakeAz();
        const { binaries, folder } = cluster();
        const machine = { kubectl: binaries.kubectl, kubeconfig, home: folder, az };
        const { stdout } = await runOn(machine, words.split(' '));
        const lines = [...az.lines, ...(stdout.match(/^(?:# )?az .*/gm) ?? [])].join('\n');
        assert.ok(!lines.includes(hostile), `${words}: ${lines}`);
      }
    }
  });

  describe('with objects of its own', () => {
    beforeEach(async () => {
      const make = `identity add mine --client-id ${clientId} --resource-id ${ordersId} --apply`;
      assert.equal((await run(make.split(' '))).code, 0);
      for (const words of ['identity assign mine --apply --context shop']) {
        const { code, stderr } = await run(words.split(' '));
        assert.equal(code, 0, stderr);
      }
      config('use-context', 'shop');
    });

    it('does nothing twice', async () => {
      for (const words of [
        `identity add mine --client-id ${clientId} --resource-id ${ordersId} --apply`,
        'identity assign mine --apply',
      ]) {
        const { names, stdout } = await changedBy(words.split(' '));
        assert.deepEqual(names, [], words);
        assert.match(stdout, /is there already/);
        config('use-context', 'shop');
      }
    });
  });

  it('overwrites nothing of the same name', async () => {
    const other = clientId.replace(/^./, '5');
    for (const words of [
      `identity add orders --client-id ${other} --apply`,
      'identity assign orders --selector other --apply',
    ]) {
      if (words.includes('assign')) {
        await cluster().applyOverHttp(declared.replaceAll('name: declared', 'name: orders'));
      }
      const { names, stderr } = await changedBy(words.split(' '), 1);
      assert.deepEqual(names, [], words);
      assert.match(stderr, /exists; its spec\.\w+ is/);
      config('use-context', 'shop');
    }
  });

  it('removes only its own pod after a test, in the context that it began in', async () => {
    const words = 'test --pod web --image example/entra-pod-identity:0.1.0 --timeout 3s';
    const { names, stderr } = await changedBy(words.split(' '), 1);
    assert.deepEqual(names, []);
    assert.match(
      stderr,
      /^pod nmi-test-\w+ is created in context shop, namespace shop, and deleted/m,
    );
  });
});
