/**
 * `kubectl nmi` on a real server: the words of the real kubectl, the rights of its users, Events and
 * statuses as the server stores them, and kubectl's own ways to start a plugin.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { renderEvent } from '../../src/nmi/kube/events/event.ts';
import { readyIn } from '../support/ready-condition.ts';
import { openConditionsProcess, setNodes } from './support/conditions-process.ts';
import { readOldDefinitions } from './support/go-module.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import {
  agent,
  agentSet,
  boundIdentity,
  boundPod,
  clearObjects,
  clientId,
  good,
  machineOf,
  putObjects,
  readIdentities,
  readPods,
  roleFor,
  runOn,
  tenant,
  type RealMachine,
} from './support/plugin.ts';

const root = join(import.meta.dirname, '../..');
const group = '/apis/aadpodidentity.k8s.io/v1/namespaces/shop';
const explain = 'explain pod web -n shop';
const developer = { namespace: 'shop', name: 'developer' };
const ofDevelopers = roleFor('developer', 'shop', `${readPods}, ${readIdentities}`);
const run = promisify(execFile);

describeOnNewestVersion('kubectl nmi', (cluster) => {
  let machine: RealMachine;
  const type = (words: string, as: Partial<RealMachine> = {}) =>
    runOn({ ...machine, ...as }, words);
  const only = async (objects: string) => {
    await clearObjects(cluster());
    await putObjects(cluster(), objects);
  };

  before(async () => {
    machine = machineOf(cluster());
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().applyOverHttp(agentSet);
  });

  it('fails clearly in a cluster without the kinds', async () => {
    const { code, stdout, stderr } = await type(explain);
    assert.deepEqual([code, stdout], [1, '']);
    assert.equal(
      stderr,
      'error: cannot list azureidentities.aadpodidentity.k8s.io in namespace shop: the server does not have this kind of object\nInstall the custom resource definitions: kubectl apply -f deploy/crds.yaml\n',
    );
    assert.match((await type('doctor --pre')).stdout, /crd_missing/);
  });

  it('finds definitions of the old system', async () => {
    await cluster().apply(readOldDefinitions());
    const { stdout } = await type('doctor --pre');
    assert.match(stdout, /azureidentities\.aadpodidentity\.k8s\.io: crd_old/);
    // The old system has no grants.
    assert.deepEqual(stdout.match(/(?<=Definition )\w+(?=\S*: crd_missing)/g), [
      'azureidentitygrants',
    ]);
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
  });

  it('fails clearly without a configuration, a context, a server or kubectl', async () => {
    const unreachable = join(cluster().folder, 'unreachable');
    const known = await readFile(machine.kubeconfig, 'utf8');
    await writeFile(unreachable, known.replace(/https:\/\/[^"]+/, 'https://127.0.0.1:9'));
    const noConfig = /kubectl has no usable configuration.*\nSet KUBECONFIG or --kubeconfig/;
    for (const [words, as, code, said] of [
      [explain, { kubeconfig: join(cluster().folder, 'none') }, 2, noConfig],
      [`${explain} --context prod`, {}, 2, /context.*prod/],
      [explain, { kubeconfig: unreachable }, 69, /^(?![^]*(?:\n\s+at |E\d{4}))/],
      [explain, { kubectl: '/no/such/kubectl' }, 69, /not on the PATH/],
    ] as const) {
      const failed = await type(words, as);
      assert.equal(failed.code, code, words);
      assert.match(failed.stderr, said);
    }
  });

  it('needs get and list of pods and of the three kinds, and names the rest', async () => {
    await only(good);
    await cluster().apply(ofDevelopers);
    await using user = await cluster().createServiceAccountClient(developer);
    const as = { kubeconfig: user.kubeconfigPath };
    const { code, stdout } = await type(explain, as);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^pod shop\/web: GRANTED.*\n {2}Not checked \(5; -v shows why\): assignment of the identity in Azure; identity grants; refusals of the last hour; network policies; options and state of the agents\. A token shows it: kubectl nmi test --pod web -n shop\n/,
    );
    assert.match(
      (await type(`${explain} -v`, as)).stdout,
      /\n {2}network policies\n {4}cannot list networkpolicies\.networking\.k8s\.io: no right; RBAC rule: apiGroups: \["networking\.k8s\.io"\], resources: \["networkpolicies"\], verbs: \["list"\] in namespace shop\n/,
    );
    const other = await type('explain pod web -n other', as);
    assert.equal(other.code, 77);
    assert.equal(
      other.stderr,
      'error: cannot get pod other/web: Error from server (Forbidden): pods "web" is forbidden: User "system:serviceaccount:shop:developer" cannot get resource "pods" in API group "" in the namespace "other"\nAsk for this RBAC rule: apiGroups: [""], resources: ["pods"], verbs: ["get"] in namespace other\n',
    );
    assert.equal((await type('analyze -A', as)).code, 77);
  });

  it('names the slips that the server answers with a missing object', async () => {
    for (const [words, said] of [
      ['explain pod wbe -n shop', 'namespace shop has no pod wbe\nDid you mean web?'],
      [
        'explain pod web -n shpo',
        'namespace shpo does not exist\nCheck -n and the context: kubectl get namespaces',
      ],
    ] as const) {
      assert.deepEqual(await type(words), { code: 1, stdout: '', stderr: `error: ${said}\n` });
    }
  });

  it('reads the Events of agents as the server has them, and no others', async () => {
    const path = `${group}/azureidentities/orders`;
    const { metadata } = await cluster().admin.expect('GET', path);
    const report = (reason: string, agoMs: number, changes: object = {}) => {
      const apiVersion = 'aadpodidentity.k8s.io/v1';
      const of = { apiVersion, kind: 'AzureIdentity', namespace: 'shop', name: 'orders' };
      const regarding = { ...of, uid: metadata.uid };
      const note = 'Entra ID refuses it. Fix: Renew it.';
      const draft = {
        regarding,
        related: undefined,
        type: reason === 'IdentityAccepted' ? 'Normal' : 'Warning',
        reason,
        action: 'Fetch',
        note,
      } as const;
      const atWallMs = Date.now() - agoMs;
      const event = renderEvent(draft, { name: `orders.${agoMs}`, atWallMs, instance: 'node-1' });
      const events = '/apis/events.k8s.io/v1/namespaces/shop/events';
      return cluster().admin.expect('POST', events, { ...event, ...changes });
    };
    const granted = /^pod shop\/web: GRANTED, /;
    await report('CredentialRefused', 3_000, { reportingController: 'example/other' });
    assert.match((await type(explain, { laterMs: 0 })).stdout, granted);
    await report('CredentialRefused', 2_000);
    const refused = await type(explain, { laterMs: 0 });
    assert.match(refused.stdout, /^pod shop\/web: REFUSED, gets 400 credential_refused\n/);
    assert.match(
      refused.stdout,
      /The agent of node node-1 reported at \S+Z: Entra ID refuses it\./,
    );
    await report('IdentityAccepted', 0);
    assert.match((await type(explain, { laterMs: 0 })).stdout, granted);
  });

  it('runs a migration off the add-on: the server takes what it exports', async () => {
    const exported = (await type('migrate export-addon -A')).stdout;
    assert.doesNotMatch(exported, /managedFields|resourceVersion|uid|creationTimestamp/);
    // What AKS does with the objects of the add-on.
    await only(boundPod() + agent());
    await cluster().apply(exported);
    assert.match((await type(explain)).stdout, /GRANTED/);
    const { stdout } = await type('analyze -A --threshold warning');
    assert.match(stdout, /^0 errors, 0 warnings/);
  });

  it('reads the status, where it shows a missing Secret, an unusable one, or a missing grant', async () => {
    const other = clientId.replace(/^./, '5');
    const secret = `type: 1, clientID: ${clientId}, tenantID: ${tenant}, clientPassword: `;
    const bad = [
      ['secret', `${secret}{ name: sp, namespace: shop }`, 'credential_missing'],
      ['keyless', `${secret}{ name: keyless, namespace: shop }`, 'credential_invalid'],
      ['stranger', `type: 0, clientID: ${other}`, 'identity_not_owned'],
    ] as const;
    const objects = bad.map(
      ([name, spec], at) => boundIdentity(name, spec) + boundPod(name, name, `10.244.1.${at + 8}`),
    );
    // That of the manifest has other labels.
    const set = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';
    await cluster().admin.expect('DELETE', set);
    await cluster().apply(await readFile(join(root, 'deploy/nmi.yaml'), 'utf8'));
    await only(good + objects.join(''));
    await setNodes(cluster(), 1);
    const getSecrets = "{ apiGroups: [''], resources: [secrets], verbs: [get] }";
    await cluster().apply(`${roleFor('nmi-conditions', 'kube-system', getSecrets, 'shop')}---
apiVersion: v1
kind: Secret
metadata: { name: keyless, namespace: shop }
data: { password: eA==, secret: eA== }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityGrant
metadata: { name: shop }
spec: { namespaces: [shop], clientIDs: [${clientId}] }
`);
    await using user = await cluster().createServiceAccountClient(developer);
    const as = { kubeconfig: user.kubeconfigPath, api: user.api };
    await using _ = await openConditionsProcess(cluster(), { 'identity-owners': 'enforce' });
    const expected = { orders: 'True ok' } as Record<string, string>;
    for (const [name, , reason] of bad) expected[name] = `False ${reason}`;
    await eventually(async () => {
      for (const [name, ready] of Object.entries(expected)) {
        const { status } = await cluster().admin.expect('GET', `${group}/azureidentities/${name}`);
        assert.equal(readyIn(status), ready);
      }
    }, 30_000);
    const { stdout: analyzed } = await type('analyze -n shop', as);
    for (const [name, , reason] of bad) {
      const { stdout } = await type(`explain pod ${name} -n shop`, as);
      assert.match(stdout, new RegExp(`^pod shop/${name}: REFUSED, gets 400 ${reason}\n`));
      assert.ok(analyzed.includes(`error   AzureIdentity shop/${name}: ${reason}\n`), analyzed);
    }
    const { stdout } = await type(explain, as);
    assert.doesNotMatch(stdout, /identity grants/, 'its status shows that it has one');
  });
});

/** What the chart gives without allowAccessToSecrets and allowFederation. */
const rightsOfAgent = `
  { apiGroups: [''], resources: [pods], verbs: [list, watch] },
  { apiGroups: [aadpodidentity.k8s.io], resources: ['*'], verbs: [list, watch] },
  { apiGroups: [events.k8s.io], resources: [events], verbs: [create] },
  { apiGroups: [''], resources: [nodes], verbs: ['impersonate-on:associated-node:get'] },
`;

describeOnNewestVersion('kubectl nmi doctor', (cluster) => {
  const type = (words: string, as: Partial<RealMachine> = {}) =>
    runOn({ ...machineOf(cluster()), ...as }, words);

  before(async () => {
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
    await cluster().applyOverHttp(`${agentSet}---
apiVersion: v1
kind: Node
metadata: { name: node-1, labels: { kubernetes.io/os: linux } }
`);
    const args = "'--startup-taint=example.com/starting', --workload-identity";
    const getSecrets = "{ apiGroups: [''], resources: [secrets], verbs: [get] }";
    const ofIdentities = readIdentities.replace("'*'", 'azureidentities');
    await putObjects(cluster(), agent({ args }));
    await cluster().applyOverHttp(
      roleFor('default', 'kube-system', rightsOfAgent, '') +
        roleFor('default', 'kube-system', getSecrets, 'other') +
        roleFor('developer', 'shop', `${readPods}, ${ofIdentities}`),
    );
  });

  it('knows all four definitions, and the rights that the identities need', async () => {
    const ids = `clientID: ${clientId}, tenantID: ${tenant}`;
    await cluster().applyOverHttp(
      boundIdentity('p', `${ids}, type: 1, clientPassword: { name: s, namespace: shop }`) +
        boundIdentity('c', `${ids}, type: 2, clientPassword: { name: s }`, 'other') +
        boundIdentity('federated', `${ids}, type: 3`) +
        boundIdentity('own', `${ids}, type: 3, federation: node`, 'other'),
    );
    const { stdout } = await type('doctor');
    for (const said of [
      /^ok +custom resource definitions +4 of 4$/m,
      /It may not get secrets in namespace shop, .*AzureIdentity shop\/p/,
      /It may not create serviceaccounts\/token in namespace shop, .*AzureIdentity shop\/federated/,
      // With spec.federation node the agent requests tokens of its own service account.
      /It may not create serviceaccounts\/token in namespace kube-system, .*AzureIdentity other\/own/,
      /It may not patch nodes/,
      /cannot see in which namespaces the agent may get serviceaccounts: /,
      /rights of the agent +4 missing, 2 not checked\n/,
    ]) {
      assert.match(stdout, said);
    }
    assert.doesNotMatch(stdout, /secrets in namespace other/, 'a Role gives it there');
    assert.doesNotMatch(stdout, /It may not get nodes/, 'it may as its own node');
  });

  it('reports nothing as missing to a user who may not see it', async () => {
    await using user = await cluster().createServiceAccountClient(developer);
    const as = { kubeconfig: user.kubeconfigPath };
    for (const words of ['doctor -n shop', 'doctor --pre -n shop']) {
      const { code, stdout, stderr } = await type(words, as);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^not checked +custom resource definitions +-$/m);
      assert.match(stdout, /^not checked +MIC of aad-pod-identity +-$/m);
      assert.doesNotMatch(stdout, /\d of \d|not there|\w+_missing|No Linux node/);
    }
  });

  it('misses a definition that is deleted', async () => {
    const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/azureidentitygrants';
    await cluster().admin.expect('DELETE', `${path}.aadpodidentity.k8s.io`);
    const { code, stdout } = await type('doctor');
    assert.equal(code, 1);
    assert.match(stdout, /custom resource definitions +3 of 4\n/);
    assert.match(stdout, /azureidentitygrants\.aadpodidentity\.k8s\.io: crd_missing/);
  });
});

/** The kubelet mounts the account of a pod there. */
const inPod = `
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$ACCOUNT"/* /run/secrets/kubernetes.io/serviceaccount
exec "$@"
`;

describeOnNewestVersion('the process of kubectl nmi', (cluster) => {
  const main = join(root, 'src/kubectl/main.ts');

  before(async () => {
    await cluster().createNamespace('shop');
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
    await eventually(() => cluster().apply(ofDevelopers + boundIdentity() + boundPod()));
  });

  it('completes words by kubectl, which finds it on the PATH', async () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    const path = join(folder, 'plugin');
    await mkdir(path);
    // As scripts/build.ts writes the second one.
    for (const [name, line] of [
      ['kubectl-nmi', `'${process.execPath}' '${main}' "$@"`],
      ['kubectl_complete-nmi', 'kubectl-nmi __complete "$@"'],
    ] as const) {
      await writeFile(join(path, name), `#!/bin/sh\nexec ${line}\n`, { mode: 0o755 });
    }
    const env = {
      PATH: `${path}:${process.env['PATH'] ?? ''}`,
      HOME: folder,
      KUBECONFIG: adminKubeconfig,
      KUBECTL: binaries.kubectl,
    };
    for (const [words, word] of [
      ['exp', 'explain'],
      ['doctor --pr', '--pre'],
      ['explain -n sh', 'shop'],
      ['explain -n shop pod w', 'web'],
    ] as const) {
      const args = ['__complete', 'nmi', ...words.split(' ')];
      assert.equal((await run(binaries.kubectl, args, { env })).stdout, `${word}\n:4\n`);
    }
  });

  it('has in a pod its rights and its namespace, without any configuration', async () => {
    await using user = await cluster().createServiceAccountClient(developer);
    const account = join(cluster().folder, 'account');
    await mkdir(account);
    await writeFile(join(account, 'token'), user.token);
    await writeFile(join(account, 'ca.crt'), cluster().caPem);
    await writeFile(join(account, 'namespace'), 'shop');
    const { hostname, port } = new URL(cluster().url);
    const env = {
      PATH: process.env['PATH'],
      HOME: join(account, 'home'),
      ACCOUNT: account,
      KUBECTL: cluster().binaries.kubectl,
      KUBERNETES_SERVICE_HOST: hostname,
      KUBERNETES_SERVICE_PORT: port,
    };
    const { stdout } = await run(
      'unshare',
      [
        ...['--user', '--map-root-user', '--mount', 'sh', '-ec', inPod, 'sh'],
        ...[process.execPath, main, 'identity', 'list'],
      ],
      { env },
    );
    assert.match(stdout, /^shop +orders +user-assigned /m);
  });
});
