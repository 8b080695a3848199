/**
 * The admission policies on real servers: what they refuse, to whom, with which message, and what
 * not.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { Answer, Api, RequestOptions } from './support/api.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';
import { deletePod, runPod } from './support/pods.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const policies = ['binding-label', 'drop-net-raw', 'warn-identities'];
const agent = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const audience = 'api://AzureADTokenExchange';
const mergePatch = 'application/merge-patch+json';

/** alice may write every workload, and use one value of the label. */
const rights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: write-workloads, namespace: shop }
rules:
  - { apiGroups: ['', apps, batch], resources: ['*'], verbs: ['*'] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: write-workloads, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: write-workloads }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: alice }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: use-checkout, namespace: shop }
rules:
  - apiGroups: [aadpodidentity.k8s.io]
    resources: [selectors]
    resourceNames: [checkout]
    verbs: [use]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: use-checkout, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: use-checkout }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: alice }]
`;

const dropped = { capabilities: { drop: ['ALL'] } };

interface PodWish {
  readonly label?: string;
  readonly context?: object;
  readonly image?: string;
  readonly spec?: object;
}

function podOf({ label, context = dropped, image = 'app', spec = {} }: PodWish): {
  readonly metadata: object;
  readonly spec: object;
} {
  return {
    metadata: { name: 'app', labels: label === undefined ? {} : { aadpodidbinding: label } },
    spec: { containers: [{ name: 'app', image, securityContext: context }], ...spec },
  };
}

const restarting = { restartPolicy: 'OnFailure' };
const templateIn =
  (place: string, more: object = {}) =>
  (wish: PodWish): Workload => [
    place,
    { spec: { selector: { matchLabels: { app: 'app' } }, ...more, template: templateOf(wish) } },
  ];

/** Path below the namespace, and an object around a pod's template. */
type Workload = readonly [place: string, object: object];

const workloads: Readonly<Record<string, (wish: PodWish) => Workload>> = {
  'a Pod': (wish) => ['/api/v1 pods', podOf(wish)],
  'a ReplicationController': templateIn('/api/v1 replicationcontrollers', {
    selector: { app: 'app' },
  }),
  'a Deployment': templateIn('/apis/apps/v1 deployments'),
  'a ReplicaSet': templateIn('/apis/apps/v1 replicasets'),
  'a StatefulSet': templateIn('/apis/apps/v1 statefulsets', { serviceName: 'app' }),
  'a DaemonSet': templateIn('/apis/apps/v1 daemonsets'),
  'a ControllerRevision': (wish) => [
    '/apis/apps/v1 controllerrevisions',
    { revision: 1, data: { spec: { template: templateOf(wish) } } },
  ],
  'a Job': (wish) => ['/apis/batch/v1 jobs', { spec: { template: templateOf(wish, restarting) } }],
  'a CronJob': (wish) => {
    const jobTemplate = { spec: { template: templateOf(wish, restarting) } };
    return ['/apis/batch/v1 cronjobs', { spec: { schedule: '0 0 * * *', jobTemplate } }];
  },
};

function templateOf(wish: PodWish, more: object = {}): object {
  const { spec, metadata } = podOf(wish);
  const { labels } = metadata as { labels: object };
  return { metadata: { labels: { ...labels, app: 'app' } }, spec: { ...spec, ...more } };
}

function as(user: string, ...groups: readonly string[]): RequestOptions {
  const headers: Record<string, string> = { 'impersonate-user': user };
  if (groups[0] !== undefined) headers['impersonate-group'] = groups[0];
  return { headers };
}

const alice = as('alice');

describeOnEveryVersion('the admission policies', (cluster) => {
  const pods = '/api/v1/namespaces/shop/pods';

  before(async () => {
    await cluster().createNamespace('shop');
    await cluster().applyOverHttp(rights);
    for (const file of ['crds', 'nmi']) {
      await cluster()
        .apply(await readFile(join(deploy, `${file}.yaml`), 'utf8'))
        .catch(again(file));
    }
    const federation = await readFile(join(deploy, 'rights-federation-before-1.36.yaml'), 'utf8');
    for (const namespace of ['shop', agent.namespace]) {
      await cluster().apply(federation.replaceAll('my-namespace', namespace));
    }
    for (const file of policies) {
      await cluster().apply(await readFile(join(deploy, `policies/${file}.yaml`), 'utf8'));
    }
  });

  /** The kind of the exception in nmi.yaml is served only after a moment. */
  function again(file: string): () => Promise<string> {
    return () =>
      eventually(async () => cluster().apply(await readFile(join(deploy, `${file}.yaml`), 'utf8')));
  }

  const create = (path: string, body: object, options: RequestOptions = {}): Promise<Answer> =>
    cluster().admin.request('POST', `${path}?dryRun=All`, body, options);

  /** A write of labels by a subresource of a pod, or by `bindings`. */
  function writeLabels(
    name: string,
    way: string,
    labels: Readonly<Record<string, string>>,
    options: RequestOptions = {},
  ): Promise<Answer> {
    const { admin } = cluster();
    const metadata = { name, labels };
    if (!/binding/.test(way)) {
      const patch = { ...options, contentType: mergePatch };
      return admin.request('PATCH', `${pods}/${name}/${way}`, { metadata: { labels } }, patch);
    }
    const target = { kind: 'Node', name: 'node-a' };
    const body = { apiVersion: 'v1', kind: 'Binding', metadata, target };
    const path = way === 'bindings' ? pods.replace(/pods$/, way) : `${pods}/${name}/${way}`;
    return admin.request('POST', path, body, options);
  }

  describe('drop NET_RAW', () => {
    const createPod = (wish: PodWish): Promise<Answer> => create(pods, podOf(wish));
    const said =
      /must not have raw sockets: set\s+securityContext\.capabilities\.drop: \[NET_RAW\].*in container /s;

    before(() =>
      eventually(async () => {
        assert.equal((await createPod({ label: 'checkout' })).status, 201);
        assert.equal((await createPod({ label: 'checkout', context: {} })).status, 403);
      }, 30_000),
    );

    const capabilities = (drop: string, ...add: readonly string[]): PodWish => ({
      context: { capabilities: { drop: [drop], add } },
    });
    const offenders: Readonly<Record<string, PodWish>> = {
      'without a security context': { context: {} },
      'with another drop': capabilities('NET_ADMIN'),
      'with a drop that only some runtimes understand': capabilities('CAP_NET_RAW'),
      'with NET_RAW added back': capabilities('ALL', 'NET_RAW'),
      'with it by its long name': capabilities('ALL', 'cap_net_raw'),
      'with everything added back': capabilities('ALL', 'all'),
      'that is privileged': { context: { privileged: true, ...dropped } },
      'whose init container has them': { spec: { initContainers: [{ name: 'i', image: 'i' }] } },
    };
    for (const [what, wish] of Object.entries(offenders)) {
      it(`refuse a pod ${what}, if it has the label`, async () => {
        const { status, body } = await createPod({ label: 'checkout', ...wish });
        assert.equal(status, 403);
        assert.match(body.message ?? '', said);
        assert.equal((await createPod(wish)).status, 201);
      });
    }

    it('name every container that violates it', async () => {
      const spec = {
        containers: [
          { name: 'one', image: 'a' },
          { name: 'two', image: 'a', securityContext: dropped },
          { name: 'three', image: 'a' },
        ],
      };
      const { body } = await createPod({ label: 'checkout', spec });
      assert.match(body.message ?? '', /in container one, three$/);
    });

    for (const drop of ['ALL', 'all', 'NET_RAW', 'net_raw']) {
      it(`accept a drop of ${drop}`, async () => {
        const wish = capabilities(drop, 'NET_BIND_SERVICE');
        assert.equal((await createPod({ label: 'checkout', ...wish })).status, 201);
      });
    }

    it('leave Windows alone', async () => {
      const spec = { os: { name: 'windows' }, containers: [{ name: 'app', image: 'app' }] };
      assert.equal((await createPod({ label: 'checkout', spec })).status, 201);
    });

    it('check pods that get the label, or another container, and not terminating pods', async () => {
      const { admin } = cluster();
      const pod = { namespace: 'shop', name: 'raw', node: 'node-a', ip: '10.1.0.1' };
      await runPod(admin, pod);
      const patch = (body: object): Promise<Answer> =>
        admin.request('PATCH', `${pods}/raw`, body, { contentType: mergePatch });
      const labelled = await patch({ metadata: { labels: { aadpodidbinding: 'checkout' } } });
      assert.equal(labelled.status, 403);
      assert.match(labelled.body.message ?? '', said);
      for (const way of ['status', 'binding'] as const) {
        const refused = await writeLabels('raw', way, { aadpodidbinding: 'checkout' });
        assert.equal(refused.status, 403, way);
        assert.match(refused.body.message ?? '', way === 'status' ? said : /a Binding must not/);
      }
      assert.equal((await writeLabels('raw', 'status', { app: 'app' })).status, 200);
      const held = { finalizers: ['example.com/hold'], labels: { app: 'app' } };
      assert.equal((await patch({ metadata: held })).status, 200);
      assert.equal((await patch({ metadata: { finalizers: null } })).status, 200);
      await deletePod(admin, pod);

      await admin.expect('POST', pods, podOf({ label: 'checkout' }));
      const debug = (securityContext: object): Promise<Answer> => {
        const ephemeralContainers = [{ name: 'debug', image: 'debug', securityContext }];
        return admin.request(
          'PATCH',
          `${pods}/app/ephemeralcontainers`,
          { spec: { ephemeralContainers } },
          { contentType: 'application/strategic-merge-patch+json' },
        );
      };
      const raw = await debug({});
      assert.equal(raw.status, 403);
      assert.match(raw.body.message ?? '', /in container debug$/);
      assert.equal((await debug(dropped)).status, 200);
      await deletePod(admin, { namespace: 'shop', name: 'app' });
    });

    it('let pods without the label be scheduled where they apply to all pods', async () => {
      const { admin } = cluster();
      const path = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings';
      const policyName = 'entra-pod-identity-drop-net-raw';
      await admin.expect('POST', path, {
        metadata: { name: 'all-pods' },
        spec: { policyName, validationActions: ['Deny'] },
      });
      await eventually(async () => {
        assert.equal((await createPod({ context: {} })).status, 403);
      }, 30_000);
      await admin.expect('POST', pods, podOf({}));
      const { status, body } = await writeLabels('app', 'binding', { zone: '1' });
      assert.equal(status, 201, body.message ?? '');
      await deletePod(admin, { namespace: 'shop', name: 'app' });
      await admin.expect('DELETE', `${path}/all-pods`);
      await eventually(async () => {
        assert.equal((await createPod({ context: {} })).status, 201);
      }, 30_000);
    });
  });

  describe('of the label', () => {
    async function createWorkload(
      what: string,
      wish: PodWish,
      options: RequestOptions,
    ): Promise<Answer> {
      const make = workloads[what];
      assert.ok(make !== undefined);
      const [place, body] = make(wish);
      const [root = '', plural = ''] = place.split(' ');
      const path = `${root}/namespaces/shop/${plural}`;
      return create(path, { metadata: { name: 'app' }, ...body }, options);
    }

    before(() =>
      eventually(async () => {
        const { status } = await createWorkload('a Pod', { label: 'payroll' }, alice);
        assert.equal(status, 403);
      }, 30_000),
    );

    for (const what of Object.keys(workloads)) {
      it(`decide who may use a value in ${what}`, async () => {
        const refused = await createWorkload(what, { label: 'payroll' }, alice);
        assert.equal(refused.status, 403);
        assert.match(
          refused.body.message ?? '',
          /the label aadpodidbinding: payroll gives an Azure identity, and alice may not use it in namespace shop: this takes the verb "use" on selectors\.aadpodidentity\.k8s\.io "payroll"$/,
        );
        for (const label of ['checkout', '', undefined]) {
          const wish = label === undefined ? {} : { label };
          const { status, body } = await createWorkload(what, wish, alice);
          assert.equal(status, 201, body.message ?? '');
        }
        assert.equal((await createWorkload(what, { label: 'payroll' }, {})).status, 201);
      });
    }

    it('decide on every subresource that can label a pod', async (t) => {
      const { admin } = cluster();
      const { resources } = (await admin.expect('GET', '/api/v1')) as unknown as {
        readonly resources: readonly { name: string; kind: string; verbs: readonly string[] }[];
      };
      const ways = resources
        .filter(({ name }) => /^pods\/|^bindings$/.test(name))
        .filter(({ kind, verbs }) => verbs.includes('patch') || kind === 'Binding')
        .map(({ name }) => name.replace('pods/', ''));
      const labelBy = async (way: string, options: RequestOptions): Promise<string | undefined> => {
        await admin.expect('POST', pods, podOf({ context: {} }));
        await writeLabels('app', way, { aadpodidbinding: 'payroll' }, options);
        const { metadata } = await admin.expect('GET', `${pods}/app`);
        await deletePod(admin, { namespace: 'shop', name: 'app' });
        return (metadata as { readonly labels?: Record<string, string> }).labels?.[
          'aadpodidbinding'
        ];
      };
      // The other policy refuses some of these writes too.
      await cluster().kubectl([
        ...['delete', 'validatingadmissionpolicybinding', 'entra-pod-identity-drop-net-raw'],
      ]);
      await eventually(async () => assert.equal(await labelBy('status', {}), 'payroll'), 30_000);
      const labeling = [];
      for (const way of ways) {
        assert.equal(await labelBy(way, alice), undefined, way);
        if ((await labelBy(way, {})) === 'payroll') labeling.push(way);
      }
      t.diagnostic(`of ${ways.join(' ')}: ${labeling.join(' ')}`);
      // Labels of a Binding count from 1.35 on.
      const [, minor = 0] = cluster().binaries.version.split('.').map(Number);
      assert.deepEqual(labeling, [...(minor < 35 ? [] : ['bindings', 'binding']), 'status']);
    });

    it('let kubelets and schedulers write pods of any label', async () => {
      const { admin } = cluster();
      await admin.expect('POST', pods, podOf({ label: 'payroll' }));
      for (const way of ['status', 'binding']) {
        const { status, body } = await writeLabels('app', way, { zone: '1' }, alice);
        assert.ok(status < 300, `${way}: ${body.message ?? ''}`);
      }
      await deletePod(admin, { namespace: 'shop', name: 'app' });
    });

    it('do not apply to older objects until their program changes', async () => {
      const { admin } = cluster();
      const path = '/apis/apps/v1/namespaces/shop/deployments';
      const [, body] = workloads['a Deployment']?.({ label: 'payroll' }) ?? [];
      await admin.expect('POST', path, { metadata: { name: 'theirs' }, ...body });
      const patch = (change: object): Promise<Answer> =>
        admin.request('PATCH', `${path}/theirs`, change, { ...alice, contentType: mergePatch });
      assert.equal((await patch({ spec: { replicas: 3 } })).status, 200);
      assert.equal((await patch({ metadata: { annotations: { seen: 'yes' } } })).status, 200);
      const containers = [{ name: 'app', image: 'mine', securityContext: dropped }];
      const image = await patch({ spec: { template: { spec: { containers } } } });
      assert.equal(image.status, 403);
      const relabel = (label: string | null): Promise<Answer> =>
        patch({ spec: { template: { metadata: { labels: { aadpodidbinding: label } } } } });
      assert.equal((await relabel('other')).status, 403);
      assert.equal((await relabel('checkout')).status, 200);
      assert.equal((await relabel(null)).status, 200);
    });

    it('refuse a user who may use it only in another namespace', async () => {
      await cluster().createNamespace('office');
      await cluster().applyOverHttp(rights.replaceAll('namespace: shop', 'namespace: office'));
      await cluster().admin.expect(
        'DELETE',
        '/apis/rbac.authorization.k8s.io/v1/namespaces/office/roles/use-checkout',
      );
      await eventually(async () => {
        const path = '/api/v1/namespaces/office/pods';
        assert.equal((await create(path, podOf({}), alice)).status, 201);
        const { status, body } = await create(path, podOf({ label: 'checkout' }), alice);
        assert.equal(status, 403);
        assert.match(body.message ?? '', /alice may not use it in namespace office/);
      });
    });

    it('let the controllers create pods of existing workloads, and no user with a similar name', async () => {
      const account = 'system:serviceaccount:kube-system:replicaset-controller';
      const body = podOf({ label: 'payroll' });
      const made = await create(pods, body, as(account));
      assert.equal(made.status, 201, made.body.message ?? '');
      await cluster().applyOverHttp(rights.replaceAll('name: alice', `name: '${account}x'`));
      await eventually(async () => {
        assert.equal((await create(pods, podOf({}), as(`${account}x`))).status, 201);
      });
      assert.equal((await create(pods, body, as(`${account}x`))).status, 403);
      await cluster().applyOverHttp(rights);
    });
  });

  describe('of token requests', () => {
    const tokenPath = (namespace: string, name: string): string =>
      `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`;
    const request = (spec: object): object => ({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { audiences: [audience], expirationSeconds: 3600, ...spec },
    });

    async function asAgent<T>(work: (api: Api, ownPod: object) => Promise<T>): Promise<T> {
      const pod = { namespace: agent.namespace, name: 'nmi-1', node: 'node-a', ip: '10.1.0.5' };
      const { metadata } = await runPod(cluster().admin, {
        ...pod,
        serviceAccountName: agent.name,
      });
      const boundTo = { kind: 'Pod', name: pod.name, uid: metadata.uid } as const;
      await using actor = await cluster().createServiceAccountClient({ ...agent, boundTo });
      try {
        return await work(actor.api, { apiVersion: 'v1', ...boundTo });
      } finally {
        await deletePod(cluster().admin, pod);
      }
    }

    it('let the agent request the tokens that an exchange needs, and no others', async () => {
      const { admin } = cluster();
      const pod = { namespace: 'shop', name: 'client', node: 'node-a', ip: '10.1.0.6' };
      const { metadata } = await runPod(admin, pod);
      const boundObjectRef = {
        apiVersion: 'v1',
        kind: 'Pod',
        name: pod.name,
        uid: metadata.uid,
      };
      const other = await runPod(admin, {
        namespace: agent.namespace,
        name: 'nmi-2',
        node: 'node-a',
        ip: '10.1.0.7',
        serviceAccountName: agent.name,
      });
      const otherAgent = { ...boundObjectRef, name: 'nmi-2', uid: other.metadata.uid };
      const elsewhere = { ...pod, name: 'elsewhere', node: 'node-b', ip: '10.1.0.8' };
      const { uid } = (await runPod(admin, elsewhere)).metadata;
      await asAgent(async (api, ownPod) => {
        const ask = (spec: object): Promise<Answer> =>
          api.request('POST', tokenPath('shop', 'default'), request({ boundObjectRef, ...spec }));
        const askOwn = (ref: object): Promise<Answer> =>
          api.request(
            'POST',
            tokenPath(agent.namespace, agent.name),
            request({ boundObjectRef: ref }),
          );
        await eventually(async () => {
          assert.equal((await ask({})).status, 201);
          assert.equal((await ask({ audiences: ['else'] })).status, 403);
          assert.equal((await askOwn(ownPod)).status, 201);
        }, 30_000);
        for (const cloud of ['', 'USGov', 'China', 'USNat', 'USSec']) {
          assert.equal((await ask({ audiences: [`${audience}${cloud}`] })).status, 201, cloud);
        }
        assert.equal((await ask({ audiences: ['api://AKSIdentityBinding'] })).status, 201);
        assert.equal((await ask({ expirationSeconds: undefined })).status, 201);
        assert.equal((await askOwn(ownPod)).status, 201);

        // Without an audience the token is for the API server.
        const refusals: readonly (readonly [() => Promise<Answer>, RegExp])[] = [
          [() => ask({ audiences: undefined }), /for the exchange at Entra ID only, .* https:\/\//],
          [() => ask({ audiences: [] }), /not for the audience https:\/\//],
          [() => ask({ audiences: ['vault', audience] }), /not for the audience vault, api:\/\//],
          [() => ask({ audiences: [audience, 'vault'] }), /not for the audience .*, vault$/],
          [
            () => ask({ boundObjectRef: undefined }),
            /only that are bound to a pod by its name and uid$/,
          ],
          [() => ask({ boundObjectRef: { ...boundObjectRef, uid: undefined } }), /bound to a pod/],
          [
            () => ask({ boundObjectRef: { ...boundObjectRef, name: 'elsewhere', uid } }),
            /for pods of its own node only$/,
          ],
          [() => ask({ expirationSeconds: 3601 }), /for an hour at most$/],
          [() => askOwn(otherAgent), /tokens of its own service account for its own pod only$/],
        ];
        for (const [attempt, said] of refusals) {
          const { status, body } = await attempt();
          assert.equal(status, 403, String(said));
          assert.match(body.message ?? '', said);
        }
      });
    });

    it('affect no other user', async () => {
      const spec = { audiences: undefined, expirationSeconds: 86_400 };
      const path = tokenPath('shop', 'default');
      const { status } = await cluster().admin.request('POST', path, request(spec));
      assert.equal(status, 201);
    });
  });

  describe('with warnings only', () => {
    const client = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
    const application = { clientID: client, tenantID: 'contoso.com' };
    const secret = { ...application, clientPassword: { name: 's' } };
    const elsewhere = { ...application, clientPassword: { name: 's', namespace: 'office' } };
    const here = { ...application, clientPassword: { name: 's', namespace: 'shop' } };
    type Case = readonly [kind: string, spec: object | undefined, said: RegExp | undefined];

    const cases: Readonly<Record<string, Case>> = {
      'a Secret of another namespace': [
        'AzureIdentity',
        { type: 1, ...elsewhere },
        /no pod will get a token: clientPassword\.namespace is "office", and only Secrets of the own namespace "shop" are read/,
      ],
      'a certificate of another namespace': [
        'AzureIdentity',
        { type: 2, ...elsewhere },
        /clientPassword\.namespace is "office"/,
      ],
      'a Secret of the own namespace': ['AzureIdentity', { type: 1, ...here }, undefined],
      'a Secret of no namespace': ['AzureIdentity', { type: 2, ...secret }, undefined],
      'a Secret that is not used': ['AzureIdentity', { type: 0, ...elsewhere }, undefined],
      'no identity': ['AzureIdentity', { type: 0 }, /neither clientID nor resourceID says which/],
      'no spec': ['AzureIdentity', undefined, /neither clientID nor resourceID says which/],
      'an identity by its client id': ['AzureIdentity', { clientID: client }, undefined],
      'an authority without TLS': [
        'AzureIdentity',
        { type: 3, ...application, adEndpoint: 'http://login.example' },
        /adEndpoint is "http:\/\/login\.example", and only an address with https:\/\/ is asked/,
      ],
      'an authority with TLS': [
        'AzureIdentity',
        { type: 3, ...application, adEndpoint: 'HTTPS://login.microsoftonline.com/' },
        undefined,
      ],
      'no selector': ['AzureIdentityBinding', { azureIdentity: 'a' }, /spec\.selector is empty/],
      'no name': ['AzureIdentityBinding', { selector: 'a' }, /spec\.azureIdentity is empty/],
      both: ['AzureIdentityBinding', { azureIdentity: 'a', selector: 'a' }, undefined],
      'no labels': ['AzurePodIdentityException', {}, /spec\.podLabels is empty/],
      labels: ['AzurePodIdentityException', { podLabels: { a: '' } }, undefined],
    };

    const createObject = (kind: string, spec: object | undefined): Promise<Answer> => {
      const plural = `${kind.toLowerCase()}s`.replace(/ys$/, 'ies');
      return create(`/apis/aadpodidentity.k8s.io/v1/namespaces/shop/${plural}`, {
        apiVersion: 'aadpodidentity.k8s.io/v1',
        kind,
        metadata: { name: 'new' },
        ...(spec === undefined ? {} : { spec }),
      });
    };

    before(() =>
      eventually(async () => {
        const { headers } = await createObject('AzureIdentity', {});
        assert.notEqual(headers['warning'], undefined);
      }, 30_000),
    );

    for (const [what, [kind, spec, said]] of Object.entries(cases)) {
      it(`${said === undefined ? 'say nothing' : 'say why'} about ${what} in ${kind}, and refuse nothing`, async () => {
        const { status, headers, body } = await createObject(kind, spec);
        assert.equal(status, 201, body.message ?? '');
        const warning = String(headers['warning'] ?? '').replaceAll('\\"', '"');
        if (said === undefined) assert.equal(warning, '');
        else assert.match(warning, said);
      });
    }
  });
});
