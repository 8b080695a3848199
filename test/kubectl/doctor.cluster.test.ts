/**
 * `kubectl nmi doctor` on a real server: for a user with few rights, what could not be seen is "not
 * checked", and never reported as missing or as fine.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { agent, agentSet, agentSetUid, clientId } from './support/mistakes.ts';
import { runOn, type RealMachine } from './support/real-kubectl.ts';

const tenant = '7e570000-1ab0-4000-8000-000000000001';

const node = `
apiVersion: v1
kind: Node
metadata: { name: node-1, labels: { kubernetes.io/os: linux } }
`;

/** What the chart gives without allowAccessToSecrets and allowFederation. */
const agentRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: nmi }
rules:
  - { apiGroups: [''], resources: [pods], verbs: [list, watch] }
  - apiGroups: [aadpodidentity.k8s.io]
    resources: [azureidentities, azureidentitybindings, azureidentitygrants, azurepodidentityexceptions]
    verbs: [list, watch]
  - { apiGroups: [events.k8s.io], resources: [events], verbs: [create] }
  - { apiGroups: [''], resources: [nodes], verbs: ['impersonate-on:associated-node:get'] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: nmi }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nmi }
subjects: [{ kind: ServiceAccount, name: default, namespace: kube-system }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: secrets, namespace: other }
rules: [{ apiGroups: [''], resources: [secrets], verbs: [get] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: secrets, namespace: other }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: secrets }
subjects: [{ kind: ServiceAccount, name: default, namespace: kube-system }]
`;

const identity = (namespace: string, name: string, spec: string) => `
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: ${name}, namespace: ${namespace} }
spec: { clientID: ${clientId}, tenantID: ${tenant}, ${spec} }
`;

const developer = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: developer, namespace: shop }
rules:
  - { apiGroups: [''], resources: [pods], verbs: [get, list] }
  - { apiGroups: [aadpodidentity.k8s.io], resources: [azureidentities], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: developer, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: developer }
subjects: [{ kind: ServiceAccount, name: developer, namespace: shop }]
`;

describeOnNewestVersion('kubectl nmi doctor', (cluster) => {
  let machine: RealMachine;
  const run = (words: readonly string[], as: Partial<RealMachine> = {}) =>
    runOn({ ...machine, ...as }, words);

  before(async () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    machine = { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().apply(await readFile(crds, 'utf8'));
    await cluster().applyOverHttp(agentSet + '---' + node);
    const { metadata } = await cluster().admin.expect(
      'GET',
      '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi',
    );
    const args = "'--startup-taint=example.com/starting', --workload-identity";
    await cluster().applyOverHttp(agent({ args }).replaceAll(agentSetUid, metadata.uid));
    await cluster().applyOverHttp(agentRights);
    await cluster().applyOverHttp(developer);
  });

  it('knows all four definitions, and the rights that the identities need', async () => {
    await cluster().applyOverHttp(
      identity('shop', 'password', 'type: 1, clientPassword: { name: s, namespace: shop }') +
        identity('other', 'certificate', 'type: 2, clientPassword: { name: s, namespace: other }') +
        identity('shop', 'federated', 'type: 3') +
        identity('other', 'own', 'type: 3, federation: node'),
    );
    const { stdout } = await run(['doctor']);
    assert.match(stdout, /custom resource definitions +4 of 4\n/);
    assert.match(stdout, /your rights +enough/);
    assert.match(
      stdout,
      /It may not get secrets in namespace shop, .*AzureIdentity shop\/password/,
    );
    assert.doesNotMatch(stdout, /secrets in namespace other/, 'a Role gives it there');
    assert.match(
      stdout,
      /It may not create serviceaccounts\/token in namespace shop, .*AzureIdentity shop\/federated/,
    );
    assert.match(
      stdout,
      /It may not create serviceaccounts\/token in namespace kube-system, .*AzureIdentity other\/own/,
      'with spec.federation node the agent asks for tokens of its own service account',
    );
    assert.match(stdout, /It may not patch nodes/);
    assert.doesNotMatch(stdout, /It may not get nodes/, 'it may as its own node');
    assert.match(stdout, /cannot see in which namespaces the agent may get serviceaccounts: /);
    assert.match(stdout, /rights of the agent +4 missing, 2 not checked\n/);
  });

  it('reports nothing as missing to a user who may not see it', async () => {
    await using user = await cluster().createServiceAccountClient({
      namespace: 'shop',
      name: 'developer',
    });
    const as = { kubeconfig: user.kubeconfigPath };
    for (const words of [['doctor'], ['doctor', '--pre']]) {
      const { code, stdout, stderr } = await run([...words, '-n', 'shop'], as);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /custom resource definitions +not checked\n/);
      assert.match(stdout, /MIC of aad-pod-identity +not checked\n/);
      assert.doesNotMatch(stdout, /\d of \d|not there|nodes_missing|No Linux node|agent_missing/);
      assert.match(stdout, /own_rights\n +You may not list azureidentitybindings/);
      assert.doesNotMatch(stdout, /You may not list (?:pods|azureidentities\.)/);
    }
    assert.match((await run(['doctor', '--pre', '-n', 'shop'], as)).stdout, /^nodes +not checked/m);
    const json = await run(['doctor', '-n', 'shop', '-o', 'json'], as);
    assert.doesNotMatch(json.stdout, /nodes_missing|crd_missing|agent_missing/);
  });

  it('misses a definition that is deleted', async () => {
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/azureidentitygrants';
    await cluster().admin.expect('DELETE', `${path}.aadpodidentity.k8s.io`);
    const { code, stdout } = await run(['doctor', '--exit-code']);
    assert.equal(code, 1);
    assert.match(stdout, /custom resource definitions +3 of 4\n/);
    assert.match(stdout, /azureidentitygrants\.aadpodidentity\.k8s\.io: crd_missing/);
  });
});
