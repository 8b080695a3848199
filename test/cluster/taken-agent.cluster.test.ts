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
import { renderEvent } from '../../src/nmi/kube/events/event.ts';
import { repositoryRoot } from '../conventions/tree.ts';
import { objectsOf, renderChart } from './chart/chart-render.ts';
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

const aboutPod = {
  apiVersion: 'v1',
  kind: 'Pod',
  namespace: 'default',
  name: 'own',
  uid: '7e570000-1ab0-4000-8000-000000000001',
};
const aboutIdentity = {
  ...aboutPod,
  apiVersion: 'aadpodidentity.k8s.io/v1',
  kind: 'AzureIdentity',
};
const large = 'x'.repeat(200_000);
/** The longest that a TokenRequest may ask for: 136 years. */
const longest = 2 ** 32;

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
    for (const name of ['shop', 'office', 'empty']) {
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
        federationNamespaces: ['shop', 'empty'],
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

  const get = (what: string, path: string): Attempt => ({ what, method: 'GET', path });

  const tokenOf = (
    what: string,
    pod: string | undefined,
    audiences: readonly string[],
    { account = 'shop/serviceaccounts/default', expirationSeconds = 3600 } = {},
  ): Attempt => {
    const { name, uid } = pods[pod ?? '']?.metadata ?? {};
    const bound = { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid } };
    const spec = { audiences, expirationSeconds, ...(pod === undefined ? {} : bound) };
    return {
      what,
      method: 'POST',
      path: `/api/v1/namespaces/${account}/token`,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec },
    };
  };

  /** As the agent writes them, but for what is given. */
  const event = (what: string, change: object = {}): Attempt => ({
    what,
    method: 'POST',
    path: '/apis/events.k8s.io/v1/namespaces/default/events',
    body: {
      ...renderEvent(
        {
          regarding: aboutPod,
          related: aboutIdentity,
          type: 'Warning',
          reason: 'Test',
          action: 'Test',
          note: 'x'.repeat(1024),
        },
        { name: 'own.0', atWallMs: 0, instance: 'node-a' },
      ),
      ...change,
    },
  });

  const managedBy = (manager: string, fieldsV1: object): object => {
    const of = { operation: 'Update', apiVersion: 'events.k8s.io/v1', fieldsType: 'FieldsV1' };
    return { name: 'own.0', namespace: 'default', managedFields: [{ manager, ...of, fieldsV1 }] };
  };

  const patch = (what: string, node: string, change: object): Attempt => ({
    what,
    method: 'PATCH',
    path: `/api/v1/nodes/${node}`,
    body: change,
    contentType: 'application/merge-patch+json',
  });

  const attempts = (): readonly Attempt[] => [
    get('list the pods of its node', podsOn('spec.nodeName=node-a')),
    get('list the pods of another node', podsOn('spec.nodeName=node-b')),
    get('list all pods', '/api/v1/pods'),
    get('get a pod of another node', '/api/v1/namespaces/shop/pods/other'),
    {
      what: 'delete a pod of its node',
      method: 'DELETE',
      path: '/api/v1/namespaces/shop/pods/own',
    },
    tokenOf('a token for Entra ID of a pod of its node', 'own', [entra]),
    tokenOf('a token for Entra ID of a pod of another node', 'other', [entra]),
    tokenOf('one bound to no pod', undefined, [entra]),
    tokenOf('a token for identity bindings of a pod of its node', 'own', [aks]),
    tokenOf('a token for identity bindings of a pod of another node', 'other', [aks]),
    tokenOf('a token for the API server of a pod of its node that mounts none', 'own', []),
    tokenOf('a token for the API server of a pod of its node that mounts one', 'mounts', []),
    tokenOf('a token for Entra ID in a namespace that is not listed', 'agent', [entra], {
      account: `${agent.namespace}/serviceaccounts/${agent.name}`,
    }),
    tokenOf('a token for Entra ID of a pod of its node, for more than an hour', 'own', [entra], {
      expirationSeconds: 3601,
    }),
    tokenOf('the same for 136 years', 'own', [entra], { expirationSeconds: longest }),
    tokenOf('a token for the API server of a pod that mounts one, for 136 years', 'mounts', [], {
      expirationSeconds: longest,
    }),
    get('read a Secret in a listed namespace', '/api/v1/namespaces/shop/secrets/app'),
    get('read a Secret elsewhere', '/api/v1/namespaces/office/secrets/app'),
    get('list Secrets', '/api/v1/namespaces/shop/secrets'),
    event('write an Event of 1 kB about any pod, in the name of the agent of its node'),
    event('write one about any AzureIdentity', {
      type: 'Normal',
      reason: 'IdentityAccepted',
      regarding: aboutIdentity,
      related: undefined,
    }),
    event('write one in the name of another node', { reportingInstance: 'node-b' }),
    event('write one in the name of the kubelet', { reportingController: 'kubelet' }),
    event('write one about a node', { regarding: { ...aboutPod, kind: 'Node' } }),
    event('write one that names a node', { related: { ...aboutPod, kind: 'Node' } }),
    event('write one with annotations', {
      metadata: { name: 'own.0', namespace: 'default', annotations: { a: 'b' } },
    }),
    event('write one with labels', {
      metadata: { name: 'own.0', namespace: 'default', labels: { a: 'b' } },
    }),
    event('write one that says it comes again', {
      series: { count: 1000, lastObservedTime: '2026-11-29T00:00:00.000000Z' },
    }),
    event('write one of 200 kB', { regarding: { ...aboutPod, fieldPath: large } }),
    event('write one of 200 kB in a name', { regarding: { ...aboutPod, name: large } }),
    event('write one of 200 kB in a field that the server manages', {
      metadata: managedBy('other', { [`f:${large}`]: {} }),
    }),
    event('write one of 200 kB deeper in that field', {
      metadata: managedBy('test', { 'f:metadata': { 'f:labels': { [`f:${large}`]: {} } } }),
    }),
    event('write one of 200 kB in the second object', { related: { ...aboutPod, uid: large } }),
    get('read another node', '/api/v1/nodes/node-b'),
    get('read its node', '/api/v1/nodes/node-a'),
    patch('take the startup taint off its node', 'node-a', { spec: { taints: [notReady] } }),
    patch('take the startup taint off another node', 'node-b', { spec: { taints: [notReady] } }),
    patch('take another taint off its node', 'node-a', { spec: { taints: [taint] } }),
    patch('add a taint to its node', 'node-a', {
      spec: { taints: [notReady, taint, { key: 'example.com/x', effect: 'NoExecute' }] },
    }),
    patch('change its startup taint', 'node-a', {
      spec: { taints: [notReady, { ...taint, value: 'x' }] },
    }),
    patch('have its node deleted, by an owner that there is not', 'node-a', {
      metadata: {
        ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'x', uid: aboutPod.uid }],
      },
    }),
    patch('keep its node from being deleted, by a finalizer', 'node-a', {
      metadata: { finalizers: ['example.com/x'] },
    }),
    patch('set the provider id of its node', 'node-a', { spec: { providerID: 'azure:///x' } }),
    patch('set the pod network of its node', 'node-a', {
      spec: { podCIDR: '10.9.0.0/24', podCIDRs: ['10.9.0.0/24'] },
    }),
    patch('annotate its node', 'node-a', { metadata: { annotations: { a: 'b' } } }),
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
    const dryRun = method === 'GET' ? path : `${path}?fieldManager=test&dryRun=All`;
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
    const lines = block.split('\n');
    const rows = lines
      .filter((line) => line.startsWith('| '))
      .slice(2)
      .map((line) => line.split('|').slice(1, -1))
      .map((cells) => [cells[0]?.trim() ?? '', cells[column]?.trim() ?? ''] as const);
    const refused = lines
      .filter((line) => line.startsWith('- '))
      .flatMap((line) => line.replace(/^- \w+: /, '').split('; '))
      .map((what) => [what, 'no'] as const);
    const written = new Map([...rows, ...refused]);
    assert.equal(written.size, attempts().length);
    // Policies apply a moment after they are stored, and the table takes dozens of requests.
    await eventually(async () => assert.deepEqual(new Map(await table()), written), 30_000);
  });

  it('is not helped by the rights of kubelets, which its federation extends', async () => {
    const headers = {
      'impersonate-user': 'system:node:node-a',
      'impersonate-group': 'system:nodes',
      // As the API server marks who has a client certificate.
      'impersonate-extra-authentication.kubernetes.io%2Fcredential-id': 'X509SHA256=0',
    };
    const reviews = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const { status: review } = await cluster().admin.expect('POST', reviews, {});
    assert.match(JSON.stringify(review), /credential-id":\["X509SHA256=/, 'of the administrator');
    const messages: string[] = [];
    const statusOf = async ({ method, path, body }: Attempt): Promise<number> => {
      const request = cluster().admin.request(method, `${path}?dryRun=All`, body, { headers });
      const { status, body: said } = await request;
      messages.push(said.message ?? '');
      return status;
    };
    const own = (audience: string[], expirationSeconds: number, pod = 'own') =>
      statusOf(tokenOf('', pod, audience, { expirationSeconds }));
    if (Number(cluster().binaries.version.split('.')[1]) < 36) {
      assert.equal(await own([entra], 3600), 403);
      return;
    }
    await eventually(async () => {
      assert.equal(await own([entra], 86_400), 201);
      assert.equal(await own([entra], 86_401), 403);
    }, 30_000);
    assert.match(messages.at(-1) ?? '', /a kubelet may make tokens for Entra ID for a day at most/);
    assert.equal(await own([aks], longest), 403);
    // What has nothing to do with Entra ID is left alone.
    assert.equal(await own([], longest, 'mounts'), 201);
    // In a namespace without federation a kubelet gets what its pods mount, as without the agent.
    const account = `${agent.namespace}/serviceaccounts/${agent.name}`;
    assert.equal(await statusOf(tokenOf('', 'agent', [entra], { account })), 403);
  });

  it('makes no other token, and comes in the way of nobody else, where there is no pod', async () => {
    const account = 'empty/serviceaccounts/default';
    const { path, body, method } = tokenOf('', undefined, [], { account });
    await eventually(async () => {
      for (const audience of [[], [entra]]) {
        assert.deepEqual(await answersOf(tokenOf('', undefined, audience, { account })), []);
      }
    }, 30_000);
    await cluster().admin.expect(method, `${path}?dryRun=All`, body);
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
