/** The test cluster itself: what it checks and refuses, and that it leaves nothing behind. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { isAlive } from '../../lab/fabric/process-alive.ts';
import { provideCluster, provideHelm, type ClusterBinaries } from './support/binaries.ts';
import { openClusterFolder } from './support/cluster-folder.ts';
import { startCluster } from './support/cluster.ts';
import { describeOnOwnServer } from './support/on-clusters.ts';
import { readStoredState, restoreStoredState } from './support/stored-state.ts';

/** The built-in role `view` has no rules here: in other clusters a controller adds them. */
const readPods = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: read-pods, namespace: rights }
rules: [{ apiGroups: [''], resources: [pods], verbs: [list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: read-pods, namespace: rights }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-pods }
subjects: [{ kind: ServiceAccount, name: nobody, namespace: rights }]
`;
const configMaps = '/api/v1/namespaces/default/configmaps';
const viewers = '/apis/rbac.authorization.k8s.io/v1/clusterroles/view';
const identities = '/apis/aadpodidentity.k8s.io/v1/namespaces/left/azureidentities';
const identityOf = (name: string): string => `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: ${name}, namespace: left }
spec: { type: 0, clientID: 7e570000-1ab0-4000-8000-000000000001, resourceID: /subscriptions/7e570000-1ab0-4000-8000-000000000002/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i }
`;
const refuseNamespace = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: refuse }
spec:
  matchConstraints:
    resourceRules: [{ apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [namespaces] }]
  validations: [{ expression: 'false' }]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: refuse }
spec: { policyName: refuse, validationActions: [Deny] }
`;
const newNamespace = '/api/v1/namespaces?dryRun=All';
const named = { metadata: { name: 'new' } };
const helm = provideHelm();
const crds = readFileSync(join(import.meta.dirname, '../../deploy/crds.yaml'), 'utf8');

describeOnOwnServer('a cluster of the tests', (cluster) => {
  it('is as after its start for the next suite', async () => {
    const { etcd, admin } = cluster();
    const atStart = await readStoredState(etcd, admin);
    for (const suite of ['first', 'second']) {
      await cluster().createNamespace('left');
      await cluster().applyOverHttp(crds);
      await eventually(() => cluster().applyOverHttp(identityOf(suite)));
      // For a moment, the storage of a new kind answers 429.
      const { items } = await eventually(() => admin.expect('GET', identities));
      assert.deepEqual(
        items?.map(({ metadata }) => metadata.name),
        [suite],
      );
      await admin.expect('DELETE', viewers);
      await cluster().applyOverHttp(refuseNamespace);
      await eventually(async () => {
        const refused = await admin.request('POST', newNamespace, named);
        assert.equal(refused.status, 422);
      });
      await restoreStoredState(etcd, admin, atStart);
      await admin.expect('POST', newNamespace, named);
      assert.deepEqual(await readStoredState(etcd, admin), atStart);
      assert.equal((await admin.request('GET', identities)).status, 404);
      await admin.expect('GET', viewers);
    }
  });

  it('has the version that it reports', async () => {
    const { gitVersion } = await cluster().admin.expect('GET', '/version');
    assert.match(String(gitVersion), new RegExp(`^v${cluster().binaries.version}\\.\\d+$`));
  });

  it('accepts only TLS, with its own certificate authority', async () => {
    await assert.rejects(fetch(`${cluster().url}/version`), /fetch failed/);
    const { status } = await fetch(`http://${new URL(cluster().url).host}/version`);
    assert.equal(status, 400);
  });

  it('authorises by RBAC', async () => {
    await cluster().createNamespace('rights');
    await using nobody = await cluster().createServiceAccountClient({
      namespace: 'rights',
      name: 'nobody',
    });
    const pods = '/api/v1/namespaces/rights/pods';
    const refused = await nobody.api.request('GET', pods);
    assert.equal(refused.status, 403);
    assert.match(refused.body.message ?? '', /"system:serviceaccount:rights:nobody" cannot list/);
    await cluster().applyOverHttp(readPods);
    // The authorizer gets the new role by its own watch.
    await eventually(() => nobody.api.expect('GET', pods));
    assert.equal((await nobody.api.request('GET', '/api/v1/pods')).status, 403);
    assert.equal((await cluster().anonymous.request('GET', pods)).status, 403);
  });

  it('admits a pod only with a service account that exists', async () => {
    await cluster().createNamespace('admission');
    const { admin } = cluster();
    const pod = (serviceAccountName: string): object => ({
      metadata: { name: 'app' },
      spec: { serviceAccountName, containers: [{ name: 'app', image: 'app' }] },
    });
    const pods = '/api/v1/namespaces/admission/pods';
    const refused = await admin.request('POST', pods, pod('nobody'));
    assert.equal(refused.status, 403);
    assert.match(refused.body.message ?? '', /serviceaccount "nobody" not found/);
    const { spec } = await admin.expect('POST', pods, pod('default'));
    const [volume] = (spec as { volumes: { projected: unknown }[] }).volumes;
    assert.ok(volume?.projected !== undefined);
  });

  it('accepts the same objects from kubectl and over HTTP', async () => {
    const names = [
      'azureidentities.aadpodidentity.k8s.io',
      'azureidentitybindings.aadpodidentity.k8s.io',
      'azurepodidentityexceptions.aadpodidentity.k8s.io',
      'azureidentitygrants.aadpodidentity.k8s.io',
    ];
    const dry = await cluster().applyOverHttp(crds, { dryRun: true });
    assert.deepEqual(
      dry.map(({ metadata }) => metadata.name),
      names,
    );
    const get = ['get', 'crds', '--output=name'];
    assert.equal(await cluster().kubectl(get), '');
    const said = await cluster().apply(crds);
    for (const name of names) assert.match(said, new RegExp(`/${name} created`));
    assert.deepEqual(
      (await cluster().kubectl(get)).trim().split('\n'),
      names.toSorted().map((name) => `customresourcedefinition.apiextensions.k8s.io/${name}`),
    );
    await assert.rejects(cluster().kubectl(['get', 'unicorns']), /doesn't have a resource type/);
  });

  it('accepts what helm renders', { skip: helm.missing ?? false }, async () => {
    const chart = join(cluster().folder, 'chart');
    await mkdir(join(chart, 'templates'), { recursive: true });
    await writeFile(join(chart, 'Chart.yaml'), 'apiVersion: v2\nname: one\nversion: 0.1.0\n');
    await writeFile(
      join(chart, 'templates/map.yaml'),
      'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: {{ .Release.Name }}-map }\n',
    );
    const run = promisify(execFile);
    const { stdout } = await run(helm.programs ?? '', ['template', 'my', chart]);
    const [map] = await cluster().applyOverHttp(stdout, { dryRun: true });
    assert.equal(map?.metadata.name, 'my-map');
    const { status } = await cluster().admin.request('GET', `${configMaps}/my-map`);
    assert.equal(status, 404);
  });

  it('keeps its objects and its address over a kill and a restart', async () => {
    const { url, admin } = cluster();
    await cluster().createNamespace('kept');
    await cluster().killApiserver();
    await assert.rejects(admin.request('GET', '/api/v1/namespaces/kept'));
    await cluster().startApiserver();
    const { metadata } = await admin.expect('GET', '/api/v1/namespaces/kept');
    await cluster().restart();
    const again = await admin.expect('GET', '/api/v1/namespaces/kept');
    assert.equal(again.metadata.uid, metadata.uid);
    assert.equal(cluster().url, url);
  });

  it("drops etcd's history on request", async () => {
    const { admin } = cluster();
    const list = await admin.expect('GET', '/api/v1/namespaces?limit=1');
    await cluster().createNamespace('later');
    await cluster().compact();
    // Older than etcd's history, and than the server's memory after a restart.
    await cluster().restart();
    const next = `/api/v1/namespaces?limit=1&continue=${list.metadata.continue ?? ''}`;
    assert.equal((await admin.request('GET', next)).status, 410);
  });
});

const provided = provideCluster();
const skip = provided.missing ?? false;
const nothing: ClusterBinaries = { version: '', etcd: '', kubeApiserver: '', kubectl: '' };

describe('the rest of a test cluster', { skip }, () => {
  const binaries = provided.programs ?? nothing;

  it('is empty after its end', async () => {
    let pids: readonly number[] = [];
    let folder = '';
    {
      await using cluster = await startCluster(binaries);
      ({ pids, folder } = cluster);
      assert.deepEqual(pids.map(isAlive), [true, true]);
    }
    assert.deepEqual(pids.map(isAlive), [false, false]);
    assert.equal(existsSync(folder), false);
  });

  it('is empty when a server does not start, and its last log lines are reported', async () => {
    const before = childrenOfOurs();
    const broken = { ...binaries, kubeApiserver: binaries.etcd };
    await assert.rejects(startCluster(broken), /kube-apiserver: exit code.*flag provided/s);
    assert.equal(childrenOfOurs(), before);
  });

  it('has no process after the test is killed, and no folder after the next one starts', async () => {
    const script = join(import.meta.dirname, 'support/cluster-owner.ts');
    const owner = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(createInterface({ input: owner.stdout }), 'line')) as [string];
    const { pids, folder } = JSON.parse(line) as { pids: number[]; folder: string };
    assert.deepEqual(pids.map(isAlive), [true, true]);
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    await eventually(() => assert.deepEqual(pids.map(isAlive), [false, false]));
    assert.equal(existsSync(folder), true);
    await using next = await openClusterFolder();
    assert.notEqual(next.path, folder);
    assert.equal(existsSync(folder), false);
  });
});

/** Process numbers, as reported by the kernel. */
function childrenOfOurs(): string {
  return readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8');
}
