/**
 * What somebody can do with the token of one agent: its pod runs on node-a, and has every right that the chart gives
 * on request. docs/security.md has the table.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { stringify } from 'yaml';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { repositoryRoot } from '../conventions/tree.ts';
import { objectsOf, renderChart } from '../deploy/chart-render.ts';
import type { Answer, KubeBody } from './support/api.ts';
import { provideHelm } from './support/binaries.ts';
import type { Actor } from './support/cluster.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';

const helm = provideHelm();
const agent = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const entra = 'api://AzureADTokenExchange';
const aks = 'api://AKSIdentityBinding';
/** The API server gives it to every new node. */
const notReady = { key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' };
const taint = { key: 'example.com/starting', effect: 'NoSchedule' };

/** Whom the agent says it is: itself, or a node. */
type Name = undefined | 'node-a' | 'node-b';

interface Attempt {
  readonly what: string;
  readonly method: string;
  readonly path: string;
  readonly body?: object;
  readonly contentType?: string;
}

describeOnEveryVersion('a taken agent', (cluster) => {
  let actor: Actor;
  const pods: Record<string, KubeBody> = {};

  before(async () => {
    const { admin, binaries } = cluster();
    await cluster().apply(await readFile(join(repositoryRoot, 'deploy/crds.yaml'), 'utf8'));
    for (const name of ['shop', 'office']) {
      await cluster().createNamespace(name);
      const secret = { metadata: { name: 'app' }, stringData: { clientSecret: 'x' } };
      await admin.expect('POST', `/api/v1/namespaces/${name}/secrets`, secret);
    }
    for (const name of ['node-a', 'node-b']) {
      await admin.expect('POST', '/api/v1/nodes', {
        metadata: { name },
        spec: { taints: [taint] },
      });
    }
    const values = {
      rbac: {
        allowFederation: true,
        federationNamespaces: ['shop'],
        allowAccessToSecrets: true,
        secretsNamespaces: ['shop'],
      },
      nmi: { startupTaint: taint.key },
    };
    const flags = [`--kube-version=${binaries.version}.0`];
    const rights = objectsOf(
      renderChart({ helm: helm.programs ?? '', namespace: agent.namespace, values, flags }),
    ).filter(({ kind }) =>
      /^(?:ServiceAccount|(?:Cluster)?Role(?:Binding)?|Validating.*)$/.test(kind),
    );
    await cluster().applyOverHttp(rights.map((each) => stringify(each)).join('---\n'));
    const inShop = { namespace: 'shop', mountsToken: false };
    pods['own'] = await runPod(admin, { ...inShop, name: 'own', node: 'node-a', ip: '10.1.0.1' });
    const mounts = { ...inShop, mountsToken: true, name: 'mounts', node: 'node-a' };
    pods['mounts'] = await runPod(admin, { ...mounts, ip: '10.1.0.2' });
    const other = { ...inShop, name: 'other', node: 'node-b', ip: '10.2.0.1' };
    pods['other'] = await runPod(admin, other);
    pods['agent'] = await runPod(admin, {
      namespace: agent.namespace,
      name: 'agent',
      node: 'node-a',
      ip: '10.0.0.1',
      serviceAccountName: agent.name,
      mountsToken: false,
    });
    const { name, uid } = pods['agent'].metadata;
    actor = await cluster().createServiceAccountClient({
      ...agent,
      boundTo: { kind: 'Pod', name, uid },
    });
  });

  const podsOn = (selector: string): string =>
    `/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`;

  const tokenOf = (
    what: string,
    pod: string | undefined,
    audiences: readonly string[],
    account = 'shop/serviceaccounts/default',
  ): Attempt => {
    const { name, uid } = pods[pod ?? '']?.metadata ?? {};
    const bound = { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid } };
    const spec = { audiences, expirationSeconds: 3600, ...(pod === undefined ? {} : bound) };
    return {
      what,
      method: 'POST',
      path: `/api/v1/namespaces/${account}/token`,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec },
    };
  };

  const event = (what: string, instance: string, kind: string): Attempt => ({
    what,
    method: 'POST',
    path: '/apis/events.k8s.io/v1/namespaces/default/events',
    body: {
      metadata: { generateName: 'e-' },
      eventTime: '2026-11-29T00:00:00.000000Z',
      type: 'Normal',
      reason: 'Test',
      action: 'Test',
      reportingController: 'nmi',
      reportingInstance: instance,
      regarding: { kind, apiVersion: 'v1', name: 'own', namespace: 'default' },
    },
  });

  const patch = (what: string, node: string, change: object): Attempt => ({
    what,
    method: 'PATCH',
    path: `/api/v1/nodes/${node}`,
    body: change,
    contentType: 'application/merge-patch+json',
  });

  const attempts = (): readonly Attempt[] => [
    { what: 'list the pods of its node', method: 'GET', path: podsOn('spec.nodeName=node-a') },
    { what: 'list the pods of another node', method: 'GET', path: podsOn('spec.nodeName=node-b') },
    { what: 'list all pods', method: 'GET', path: '/api/v1/pods' },
    {
      what: 'get a pod of another node',
      method: 'GET',
      path: '/api/v1/namespaces/shop/pods/other',
    },
    {
      what: 'delete a pod of its node',
      method: 'DELETE',
      path: '/api/v1/namespaces/shop/pods/own',
    },
    tokenOf('a token for Entra ID of a pod of its node', 'own', [entra]),
    tokenOf('the same for a pod of another node', 'other', [entra]),
    tokenOf('the same, bound to no pod', undefined, [entra]),
    tokenOf('a token for identity bindings of a pod of its node', 'own', [aks]),
    tokenOf('the same for a pod of another node', 'other', [aks]),
    tokenOf('a token for the API server of a pod of its node that mounts none', 'own', []),
    tokenOf('the same of a pod of its node that mounts one', 'mounts', []),
    tokenOf(
      'a token for Entra ID in a namespace that is not listed',
      'agent',
      [entra],
      `${agent.namespace}/serviceaccounts/${agent.name}`,
    ),
    {
      what: 'read a Secret in a listed namespace',
      method: 'GET',
      path: '/api/v1/namespaces/shop/secrets/app',
    },
    {
      what: 'read a Secret elsewhere',
      method: 'GET',
      path: '/api/v1/namespaces/office/secrets/app',
    },
    { what: 'list Secrets', method: 'GET', path: '/api/v1/namespaces/shop/secrets' },
    event('write an Event about any pod, in the name of its node', 'node-a', 'Pod'),
    event('write an Event in the name of another node', 'node-b', 'Pod'),
    event('write an Event about a node', 'node-a', 'Node'),
    { what: 'read another node', method: 'GET', path: '/api/v1/nodes/node-b' },
    { what: 'read its node', method: 'GET', path: '/api/v1/nodes/node-a' },
    patch('take the startup taint off its node', 'node-a', { spec: { taints: [notReady] } }),
    patch('take it off another node', 'node-b', { spec: { taints: [notReady] } }),
    patch('take another taint off its node', 'node-a', { spec: { taints: [taint] } }),
    patch('add a taint to its node', 'node-a', {
      spec: { taints: [notReady, taint, { key: 'example.com/x', effect: 'NoExecute' }] },
    }),
    patch('label its node', 'node-a', { metadata: { labels: { a: 'b' } } }),
    patch('cordon its node', 'node-a', { spec: { unschedulable: true } }),
    patch('change the status of its node', 'node-a/status', { status: { phase: 'Running' } }),
    {
      what: 'create an AzureIdentity',
      method: 'POST',
      path: '/apis/aadpodidentity.k8s.io/v1/namespaces/shop/azureidentities',
      body: {
        apiVersion: 'aadpodidentity.k8s.io/v1',
        kind: 'AzureIdentity',
        metadata: { name: 'x' },
        spec: {},
      },
    },
  ];

  async function ask({ method, path, body, contentType }: Attempt, name: Name): Promise<Answer> {
    const headers: Record<string, string> =
      name === undefined ? {} : { 'impersonate-user': `system:node:${name}` };
    const dryRun = method === 'GET' ? path : `${path}?dryRun=All`;
    return actor.api.request(method, dryRun, body, {
      headers,
      ...(contentType === undefined ? {} : { contentType }),
    });
  }

  /** By name; a refusal must be one of rights, not of the request's form. */
  async function answersOf(attempt: Attempt): Promise<readonly Name[]> {
    const names: readonly Name[] = [undefined, 'node-a', 'node-b'];
    const allowed: Name[] = [];
    for (const name of names) {
      const { status, body } = await ask(attempt, name);
      assert.ok(
        [200, 201, 403].includes(status),
        `${attempt.what}: ${status} ${body.message ?? ''}`,
      );
      if (status !== 403) allowed.push(name);
    }
    return allowed;
  }

  /** Nothing is ever allowed in the name of another node. */
  async function table(): Promise<readonly (readonly [what: string, answer: string])[]> {
    const rows: (readonly [string, string])[] = [];
    for (const attempt of attempts()) {
      const allowed = await answersOf(attempt);
      assert.ok(!allowed.includes('node-b'), attempt.what);
      rows.push([attempt.what, allowed.length === 0 ? 'no' : '**yes**']);
    }
    return rows;
  }

  it('can do what the table in the documentation says, and no more', async () => {
    const text = await readFile(join(repositoryRoot, 'docs/security.md'), 'utf8');
    const [, block = ''] = /<!-- taken agent -->\n([^]*?)<!-- end -->/.exec(text) ?? [];
    const column = Number(cluster().binaries.version.split('.')[1]) >= 36 ? 1 : 2;
    const written = block
      .split('\n')
      .filter((line) => line.startsWith('| '))
      .slice(2)
      .map((line) => line.split('|').slice(1, -1))
      .map((cells) => [cells[0]?.trim(), cells[column]?.trim()]);
    // Policies apply a moment after they are stored, and the table takes dozens of requests.
    await eventually(async () => assert.deepEqual(await table(), written), 30_000);
  });

  it('cannot take another name', async () => {
    const { path, method } = attempts()[0] ?? { path: '', method: '' };
    for (const headers of [
      { 'impersonate-user': 'system:admin' },
      { 'impersonate-user': 'system:node:node-a', 'impersonate-group': 'system:masters' },
      { 'impersonate-user': 'system:serviceaccount:kube-system:default' },
      { 'impersonate-user': 'system:node:node-a', 'impersonate-uid': '1' },
    ] as const) {
      const { status } = await actor.api.request(method, path, undefined, { headers });
      assert.equal(status, 403, JSON.stringify(headers));
    }
  });
});
