/**
 * The agent's own Kubernetes code against a real server, with the permissions that the manifests
 * grant to its service account.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../../src/cache/index/objects.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openKubeClient, type KubeClient } from '../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../src/nmi/kube/api/kube-error.ts';
import { createOwnAccount } from '../../src/nmi/kube/accounts/own-account.ts';
import { requestServiceAccountToken } from '../../src/nmi/kube/accounts/token-request.ts';
import { openWatches } from '../../src/nmi/kube/watch/watches.ts';
import { keptLog, MapStore, quick } from '../unit/nmi/kube/kube-test-bed.ts';
import type { BoundObject, Cluster } from './support/cluster.ts';
import { renderKubeconfig } from './support/kubeconfig.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';
import { verifyToken } from './support/service-account-token.ts';
import { deletePod, runPod, setPodStatus } from './support/pods.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const agentAccount = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const audience = 'api://AzureADTokenExchange';

const objects = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: checkout, namespace: shop }
spec:
  type: 0
  resourceID: /subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/checkout
  clientID: 11111111-2222-3333-4444-555555555555
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: checkout, namespace: shop }
spec: { azureIdentity: checkout, selector: checkout }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzurePodIdentityException
metadata: { name: agents, namespace: shop }
spec: { podLabels: { app: agent } }
`;
const mayMakeTokens = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: make-tokens }
rules: [{ apiGroups: [''], resources: [serviceaccounts/token], verbs: [create] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: make-tokens }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: make-tokens }
subjects: [{ kind: ServiceAccount, ${JSON.stringify(agentAccount).slice(1, -1)} }]
`;

/** The agent's client as in its pod, with a pod-bound token if `boundTo` is given. */
async function openAgentClient(cluster: Cluster, boundTo?: BoundObject): Promise<KubeClient> {
  await using agent = await cluster.createServiceAccountClient({
    ...agentAccount,
    ...(boundTo === undefined ? {} : { boundTo }),
  });
  return await openKubeClient({ kubeconfigPath: agent.kubeconfigPath, userAgent: 'nmi-test/1' });
}

describeOnEveryVersion("the agent's Kubernetes client", (cluster) => {
  before(async () => {
    for (const file of ['crds.yaml', 'nmi.yaml']) {
      await cluster().apply(await readFile(join(deploy, file), 'utf8'));
    }
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
  });

  it("watches this node's pods and the custom resources, through a restart of the server", async () => {
    const { admin } = cluster();
    await cluster().createNamespace('shop');
    await using client = await openAgentClient(cluster());
    const stores = {
      pods: new MapStore<Pod>(),
      identities: new MapStore<Identity>(),
      bindings: new MapStore<Binding>(),
      exceptions: new MapStore<Exception>(),
      grants: new MapStore<IdentityGrant>(),
    };
    const on = (node: string, name: string, ip: string) => ({
      namespace: 'shop',
      name,
      node,
      ip,
      labels: { aadpodidbinding: 'checkout' },
    });
    await runPod(admin, on('node-a', 'early', '10.1.0.1'));
    await runPod(admin, on('node-b', 'elsewhere', '10.2.0.1'));
    await using watches = openWatches({
      client,
      node: 'node-a',
      stores,
      log: keptLog(),
      timing: quick,
    });
    await watches.whenSynced();
    assert.deepEqual(stores.pods.names(), ['shop/early']);
    assert.deepEqual(stores.pods.items.get('shop/early')?.ips, ['10.1.0.1']);

    await cluster().apply(objects);
    await runPod(admin, on('node-a', 'late', '10.1.0.2'));
    await stores.pods.until('the new pod', () => {
      return stores.pods.items.get('shop/late')?.ips[0] === '10.1.0.2';
    });
    await stores.identities.until('identity', () => stores.identities.items.has('shop/checkout'));
    await stores.bindings.until('binding', () => stores.bindings.items.has('shop/checkout'));
    await stores.exceptions.until('exception', () => stores.exceptions.items.has('shop/agents'));
    assert.equal(
      stores.identities.items.get('shop/checkout')?.clientId,
      '11111111-2222-3333-4444-555555555555',
    );
    assert.equal(stores.bindings.items.get('shop/checkout')?.selector, 'checkout');
    assert.equal(stores.exceptions.items.get('shop/agents')?.podLabels['app'], 'agent');

    await setPodStatus(admin, on('node-a', 'early', ''), { phase: 'Succeeded' });
    await stores.pods.until('the end', () => !stores.pods.items.has('shop/early'));

    await cluster().killApiserver();
    assert.deepEqual(stores.pods.names(), ['shop/late']);
    await cluster().startApiserver();
    await deletePod(admin, on('node-a', 'late', ''));
    await runPod(admin, on('node-a', 'after', '10.1.0.3'));
    await stores.pods.until('the changes since', () => {
      return stores.pods.names().join(' ') === 'shop/after';
    });
    assert.deepEqual(watches.unsynced(), []);
  });

  it('signs in with a plugin’s credentials, and runs the plugin again once they are refused', async () => {
    const { url, caPem, adminAccess, folder } = cluster();
    const said = join(folder, 'exec-credential.json');
    const say = (status: object): Promise<void> =>
      writeFile(said, JSON.stringify({ apiVersion, kind: 'ExecCredential', status }));
    const apiVersion = 'client.authentication.k8s.io/v1';
    const exec = { apiVersion, command: 'cat', args: [said], interactiveMode: 'Never' };
    const kubeconfigPath = join(folder, 'kubeconfig-exec');
    const config = JSON.parse(renderKubeconfig({ url, caPem })) as { users: object[] };
    config.users = [{ name: 'test', user: { exec } }];
    await writeFile(kubeconfigPath, JSON.stringify(config));

    await say({ token: 'nobody' });
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' });
    const ask = async (): Promise<object> => createOwnAccount({ client }).get();
    await assert.rejects(client.getJson('/api/v1/pods?limit=1'), (error) => {
      return error instanceof KubeError && error.code === 'UNAUTHORIZED';
    });
    await using account = await cluster().createServiceAccountClient(agentAccount);
    await say({ token: account.token });
    assert.deepEqual(await ask(), {
      kind: 'ok',
      serviceAccount: agentAccount,
      pod: undefined,
    });
    const { certPem, keyPem } = adminAccess;
    await say({ clientCertificateData: certPem, clientKeyData: keyPem });
    await using other = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' });
    assert.deepEqual(await createOwnAccount({ client: other }).get(), {
      kind: 'no_service_account',
      username: 'admin',
    });
  });

  it('reads from the server which account and which pod it is', async () => {
    await using unbound = await openAgentClient(cluster());
    assert.deepEqual(await createOwnAccount({ client: unbound }).get(), {
      kind: 'ok',
      serviceAccount: agentAccount,
      pod: undefined,
    });
    const { metadata } = await runPod(cluster().admin, {
      namespace: 'kube-system',
      name: 'nmi-1',
      node: 'node-a',
      ip: '10.1.0.9',
      serviceAccountName: agentAccount.name,
    });
    const { name, uid } = metadata;
    await using client = await openAgentClient(cluster(), { kind: 'Pod', name, uid });
    assert.deepEqual(await createOwnAccount({ client }).get(), {
      kind: 'ok',
      serviceAccount: agentAccount,
      pod: { name, uid },
    });
  });

  it('is refused with the token of a deleted pod', async () => {
    const { metadata } = await runPod(cluster().admin, {
      namespace: 'kube-system',
      name: 'nmi-2',
      node: 'node-a',
      ip: '10.1.0.10',
      serviceAccountName: agentAccount.name,
    });
    const { name, uid } = metadata;
    await using client = await openAgentClient(cluster(), { kind: 'Pod', name, uid });
    await deletePod(cluster().admin, { namespace: 'kube-system', name });
    // Not used before: the server would cache its verdict for ten seconds.
    await assert.rejects(client.getJson('/api/v1/pods?limit=1'), (error) => {
      return error instanceof KubeError && error.code === 'UNAUTHORIZED';
    });
  });

  it('gets tokens bound to a pod, which verify with the published keys', async () => {
    const { admin, issuer } = cluster();
    const namespace = 'tokens';
    await cluster().createNamespace(namespace);
    await cluster().applyOverHttp(mayMakeTokens);
    const pod = { namespace, name: 'app', node: 'node-a', ip: '10.1.0.20' };
    const { metadata } = await runPod(admin, { ...pod, serviceAccountName: 'default' });
    const boundTo = { name: 'app', uid: metadata.uid };
    await using client = await openAgentClient(cluster());
    const request = {
      serviceAccount: { namespace, name: 'default' },
      audience,
      expirationSeconds: 3600,
      boundTo,
    };
    // Rights apply a moment after they are stored.
    const made = await eventually(async () => {
      const answer = await requestServiceAccountToken(client, request);
      assert.ok(answer.kind === 'ok');
      return answer;
    });
    const { claims } = verifyToken(made.token, await cluster().jwks());
    assert.equal(claims['iss'], issuer);
    assert.equal(claims['sub'], 'system:serviceaccount:tokens:default');
    assert.deepEqual(claims['aud'], [audience]);
    assert.equal(Number(claims['exp']) - Number(claims['iat']), made.lifeMs / 1000);
    assert.equal(Number(claims['exp']) * 1000, made.expiresAtWallMs);
    assert.deepEqual((claims['kubernetes.io'] as { pod: unknown }).pod, boundTo);

    const kinds = async (change: Partial<typeof request>): Promise<string> =>
      (await requestServiceAccountToken(client, { ...request, ...change })).kind;
    const other = { name: 'app', uid: '00000000-0000-0000-0000-000000000000' };
    assert.equal(await kinds({ boundTo: other }), 'pod_replaced');
    assert.equal(await kinds({ boundTo: { ...boundTo, name: 'nobody' } }), 'missing');
    assert.equal(await kinds({ serviceAccount: { namespace, name: 'nobody' } }), 'missing');
    await (
      await cluster().createServiceAccountClient({ namespace, name: 'second' })
    )[Symbol.asyncDispose]();
    assert.equal(await kinds({ serviceAccount: { namespace, name: 'second' } }), 'pod_replaced');
    const short = { ...request, expirationSeconds: 599, boundTo: undefined };
    assert.equal((await requestServiceAccountToken(client, short)).kind, 'refused');
  });
});
