/**
 * What the verbs change on a real server: one object of one namespace, whatever another program or a
 * hostile user does meanwhile.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, beforeEach, it } from 'node:test';
import type { Api } from './support/api.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import {
  agent,
  agentSet,
  boundIdentity,
  clientId,
  machineOf,
  ordersId,
  putObjects,
  readIdentities,
  readPods,
  roleFor,
  runOn,
  tenant,
} from './support/plugin.ts';
import { setPodStatus } from './support/pods.ts';

const crds = readFileSync(join(import.meta.dirname, '../../deploy/crds.yaml'), 'utf8');
const namespaces = ['shop', 'other'] as const;
const kinds = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'] as const;
const pathOf = (namespace: string, kind: string) =>
  `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}/${kind}`;
const podIn = (namespace: string, spec = '') => `---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: ${namespace}, labels: { aadpodidbinding: orders } }
spec: { ${spec}containers: [{ name: web, image: web }] }
`;
/** What another program, as Argo CD, declares in both namespaces. */
const declared = namespaces.map((namespace) => {
  const spec = `type: 0, clientID: ${clientId}, resourceID: ${ordersId}`;
  return boundIdentity('orders', spec, namespace) + podIn(namespace);
});
/** Without it `migrate to-federation --apply` refuses. */
const createTokens = "{ apiGroups: [''], resources: [serviceaccounts/token], verbs: [create] }";

describeOnNewestVersion('verbs that write', (cluster) => {
  let kubeconfig: string;

  before(async () => {
    for (const name of [...namespaces, 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(crds);
    await cluster().applyOverHttp(agentSet);
    await putObjects(cluster(), agent() + roleFor('default', 'kube-system', createTokens, ''));
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
    await cluster().applyOverHttp(declared.join(''));
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
  function run(words: string) {
    let calls = 0;
    const onCall = () => {
      calls += 1;
      if (calls === 2) config('use-context', 'other');
    };
    return runOn({ ...machineOf(cluster()), kubeconfig, onCall }, words);
  }

  const add = (name: string, id = clientId) =>
    `identity add ${name} --client-id ${id} --resource-id ${ordersId} --apply`;
  const chain = `--type chain --federation pod --application ${clientId} --agent-identity ${clientId} --tenant-id ${tenant}`;
  const entra = `--client-id ${clientId} --tenant-id ${tenant}`;
  const federate = 'migrate to-federation --tenant-id contoso.example';
  const inContext = /^# In context shop, namespace shop:$/m;
  const verbs: readonly (readonly [words: string, changes: string, said: RegExp, code?: number])[] =
    [
      [add('mine'), 'shop/azureidentities/mine', inContext],
      [`identity add mine ${chain} --apply`, 'shop/azureidentities/mine', inContext],
      [`identity add bad --client-id mine`, '', /must be a GUID/, 1],
      [`identity add bad --resource-id [system]`, '', /must be the Azure resource id/, 1],
      [`identity add bad --type federated --client-id ${clientId}`, '', /need a tenant/, 1],
      [`identity add bad --type secret ${entra}`, '', /need the name of the Secret/, 1],
      [`identity add bad ${entra} --federation binding`, '', /only types 3 and 4 are federated/, 1],
      [`identity add bad ${entra} --application ${clientId}`, '', /are of type 4, a chain/, 1],
      [`identity add bad ${entra} --type chain`, '', /type 4 needs application.clientID/, 1],
      [`identity add bad ${chain} --client-id ${clientId}`, '', /AADSTS700231/, 1],
      ['identity assign orders --selector mine --apply', '', /exists; its spec\.selector is/, 1],
      [
        'migrate to-workload-identity',
        '',
        /^# kubectl --context=shop annotate serviceaccount default --namespace=shop /m,
      ],
      ['migrate to-workload-identity --apply', 'shop/serviceaccounts/default', inContext],
      ['identity federate orders', '', inContext],
      [federate, '', inContext],
      [`${federate} --apply`, 'shop/azureidentities/orders', inContext],
      ['identity delete orders', '', /^# kubectl --context=shop delete azureidentities\./m],
      [
        'identity delete orders --apply',
        'shop/azureidentities/orders,shop/azureidentitybindings/orders',
        inContext,
      ],
      [
        'exception add agent --pod-labels app=agent --apply',
        'shop/azurepodidentityexceptions/agent',
        inContext,
      ],
      ['exception delete agent --apply', '', /does not exist|not found/, 1],
      [add('orders'), '', /is there already/],
      ['identity assign orders --apply', '', /is there already/],
      [add('orders', clientId.replace(/^./, '5')), '', /exists; its spec\.\w+ is/, 1],
      [
        'test --pod web --image example/entra-pod-identity:0.1.0 --timeout 3s',
        '',
        /^pod nmi-test-\w+ is created in context shop, namespace shop, and deleted/m,
        1,
      ],
    ];
  for (const [words, changes, said, expectedCode = 0] of verbs) {
    it(`change ${changes || 'nothing'}: ${words.slice(0, 60)}`, async () => {
      const then = await everything();
      const { code, stdout, stderr } = await run(words);
      assert.equal(code, expectedCode, stderr);
      const now = await everything();
      const names = [...new Set([...then.keys(), ...now.keys()])]
        .filter((path) => JSON.stringify(then.get(path)) !== JSON.stringify(now.get(path)))
        .map((path) => path.replace(/^.*namespaces\//, ''));
      assert.equal(names.join(), changes);
      assert.match(stdout + stderr, said);
      assert.doesNotMatch(stdout, /context[ =]other/);
    });
  }
});

const evil = 'evil.example/steal:1';
const agentImage = 'example/entra-pod-identity:0.1.0';

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
      labels: { component: 'nmi', tier: 'node' },
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

describeOnNewestVersion('kubectl nmi beside pods of users that look like agents', (cluster) => {
  let calls: string[] = [];
  const run = (words: string, as = {}) => {
    calls = [];
    const onCall = (args: readonly string[], input: string) =>
      calls.push(`${args.join(' ')}\n${input}`);
    return runOn({ ...machineOf(cluster()), onCall, ...as }, `${words} -n shop`);
  };
  /** Calls that reach into a pod, or make one. */
  const reaching = () => calls.filter((text) => /^exec |^create |\/proxy\/|^logs /.test(text));

  before(async () => {
    await cluster().apply(crds);
    const accounts = { shop: 'robot', 'kube-system': 'agent', attack: 'thief' };
    for (const [namespace, name] of Object.entries(accounts)) {
      await cluster().createNamespace(namespace);
      await using _ = await cluster().createServiceAccountClient({ namespace, name });
    }
    const [set] = await cluster().applyOverHttp(agentSet);
    const uid = String(set?.metadata.uid);
    const spec = `type: 3, clientID: ${clientId}, tenantID: ${tenant}, resourceID: ${ordersId}, federation: node`;
    await cluster().applyOverHttp(
      boundIdentity('orders', spec) +
        roleFor('mallory', 'attack', readPods.replace('get,', 'create, get,')) +
        roleFor('viewer', 'shop', `${readPods}, ${readIdentities}`, '') +
        podIn('shop', 'serviceAccountName: robot, nodeName: node-1, '),
    );
    const user = { namespace: 'attack', name: 'mallory' };
    await using mallory = await cluster().createServiceAccountClient(user);
    const forged = { image: evil, account: 'thief' };
    const [own, near, real] = [
      { namespace: 'attack', name: 'nmi-aaaaa' },
      { namespace: 'kube-system', name: 'nmi-aaaaa' },
      { namespace: 'kube-system', name: 'nmi-x7k2p' },
    ] as const;
    assert.equal(await createPod(mallory.api, own, { ...forged, uid }), 201);
    assert.equal(await createPod(mallory.api, near, forged), 403);
    // Of somebody with a right in the agents' namespace that is not for its DaemonSets.
    const { admin } = cluster();
    assert.equal(await createPod(admin, near, { image: evil, account: 'default' }), 201);
    assert.equal(await createPod(admin, real, { image: agentImage, account: 'agent', uid }), 201);
    const status = { phase: 'Running', podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }] };
    for (const place of [own, near, real]) await setPodStatus(admin, place, status);
  });

  it('runs, trusts and enters the agent alone, and removes its own pod', async () => {
    const { stderr } = await run('test --pod web --timeout 1');
    const [made = ''] = calls.filter((text) => text.startsWith('create '));
    assert.match(made, /serviceAccountName: robot/);
    assert.match(made, new RegExp(`image: ${agentImage}`));
    assert.match(
      stderr,
      /^warning: ignored pods labelled component=nmi .*: 1 in attack, 1 in kube-system\. Agents in another namespace need --agent-namespace\.\npod nmi-test-\w+ is created in context \w+, namespace shop, and deleted at the end\n$/,
    );
    const { items = [] } = await cluster().admin.expect('GET', '/api/v1/namespaces/shop/pods');
    const left = (items as readonly { metadata: Record<string, unknown> }[]).filter(
      ({ metadata }) => metadata['name'] !== 'web' && metadata['deletionTimestamp'] === undefined,
    );
    assert.deepEqual(left, []);
    const federated = await run('identity federate orders');
    assert.equal(federated.code, 0);
    assert.match(federated.stdout, /subject system:serviceaccount:kube-system:agent\n/);
    assert.doesNotMatch(federated.stdout, /attack|thief|kube-system:default/);
    await run('sysdump');
    const entered = reaching().filter((text) => text.startsWith('exec '));
    assert.equal(entered.length, 1);
    for (const text of reaching()) assert.match(text, /kube-system.*nmi-x7k2p/);
  });

  it('runs, trusts and enters nothing for a user who may not read DaemonSets', async () => {
    const account = { namespace: 'shop', name: 'viewer' };
    await using viewer = await cluster().createServiceAccountClient(account);
    const as = { kubeconfig: viewer.kubeconfigPath };
    const tested = await run('test --pod web', as);
    assert.equal(tested.code, 2);
    assert.match(
      tested.stderr,
      /^warning: cannot verify the agents: .* Ask for this RBAC rule: apiGroups: \["apps"\], resources: \["daemonsets"\], verbs: \["list"\] in namespace kube-system$/m,
    );
    assert.deepEqual(reaching(), []);
    assert.equal((await run('identity federate orders', as)).code, 2);
    assert.deepEqual(reaching(), []);
    await run('sysdump', as);
    assert.ok(reaching().every((text) => !text.startsWith('exec ')));
  });
});
