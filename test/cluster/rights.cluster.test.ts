/**
 * The agent with exactly the permissions that the chart renders, for each feature: what it needs
 * works with its own code, and the server refuses what nobody may ever grant it.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { systemClock } from '../../src/base/time/clock.ts';
import type { ObjectName } from '../../src/cache/index/object-name.ts';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../../src/cache/index/objects.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openKubeClient, type KubeClient } from '../../src/nmi/kube/api/client.ts';
import { NodeImpersonation } from '../../src/nmi/kube/api/node-impersonation.ts';
import { createSecretReader } from '../../src/nmi/kube/accounts/secrets.ts';
import { createServiceAccounts } from '../../src/nmi/kube/accounts/service-accounts.ts';
import { EventWriter } from '../../src/nmi/kube/events/event-writer.ts';
import { requestServiceAccountToken } from '../../src/nmi/kube/accounts/token-request.ts';
import { openWatches } from '../../src/nmi/kube/watch/watches.ts';
import { objectsOf, renderChart, type KubeObject } from './chart/chart-render.ts';
import { keptLog, MapStore, quick } from '../unit/nmi/kube/kube-test-bed.ts';
import type { Api } from './support/api.ts';
import { provideHelm } from './support/binaries.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';

const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
const helm = provideHelm();
const accountName = 'aad-pod-id-nmi-service-account';
/** The object name in every call; for most kinds no such object exists. */
const objectName = 'app';
const taint = 'entra-pod-identity/not-ready';

interface Variant {
  readonly values: object;
  readonly inShop: readonly string[];
  readonly inOffice: readonly string[];
}

/** By enabled feature: what the agent can do with the objects of two namespaces. */
const variants: Readonly<Record<string, Variant>> = {
  nothing: { values: {}, inShop: ['event'], inOffice: ['event'] },
  'nothing, not even Events,': {
    values: { nmi: { events: false } },
    inShop: [],
    inOffice: [],
  },
  secrets: {
    values: { rbac: { allowAccessToSecrets: true, secretsNamespaces: ['shop', 'office'] } },
    inShop: ['secret', 'event'],
    inOffice: ['secret', 'event'],
  },
  federation: {
    values: { rbac: { allowFederation: true } },
    inShop: ['token', 'event'],
    inOffice: ['token', 'event'],
  },
  'workload identity': {
    values: { rbac: { allowFederation: true }, nmi: { workloadIdentity: true } },
    inShop: ['token', 'account', 'event'],
    inOffice: ['token', 'account', 'event'],
  },
  'a startup taint': {
    values: { nmi: { startupTaint: taint } },
    inShop: ['event'],
    inOffice: ['event'],
  },
  'everything, in one namespace': {
    values: {
      rbac: {
        allowAccessToSecrets: true,
        secretsNamespaces: ['shop'],
        allowFederation: true,
        federationNamespaces: ['shop'],
      },
      nmi: { workloadIdentity: true, startupTaint: taint },
    },
    inShop: ['secret', 'token', 'account', 'event'],
    inOffice: ['event'],
  },
};

type Tail<T extends readonly unknown[]> = T extends readonly [unknown, ...infer R] ? R : never;

/** What no feature needs, and what would be everything. */
const special: readonly (readonly [group: string, resource: string, verb: string])[] = [
  ['*', '*', '*'],
  ['', '*', 'get'],
  ['', 'secrets', '*'],
  ['', 'secrets', 'list'],
  ['', 'pods', 'create'],
  ['', 'pods', 'delete'],
  ['', 'nodes', 'list'],
  ['', 'nodes', 'update'],
  ['aadpodidentity.k8s.io', 'azureidentities', 'patch'],
  ['', 'users', 'impersonate'],
  ['', 'groups', 'impersonate'],
  ['', 'serviceaccounts', 'impersonate'],
  ['authentication.k8s.io', 'userextras/scopes', 'impersonate'],
  ['authentication.k8s.io', 'uids', 'impersonate'],
  ['rbac.authorization.k8s.io', 'roles', 'bind'],
  ['rbac.authorization.k8s.io', 'roles', 'escalate'],
  ['rbac.authorization.k8s.io', 'clusterroles', 'bind'],
  ['rbac.authorization.k8s.io', 'clusterroles', 'escalate'],
  ['certificates.k8s.io', 'signers', 'approve'],
  ['certificates.k8s.io', 'signers', 'sign'],
  ['certificates.k8s.io', 'signers', 'attest'],
  ['aadpodidentity.k8s.io', 'selectors', 'use'],
  ['aadpodidentity.k8s.io', 'azureassignedidentities', 'list'],
  ['coordination.k8s.io', 'leases', 'create'],
  ['coordination.k8s.io', 'leases', 'update'],
];
const statuses = ['azureidentities/status', 'azureidentitybindings/status'].map(
  (resource) => ['aadpodidentity.k8s.io', resource, 'patch'] as const,
);

/** Rights apply a moment after they are stored. */
const rightsLimitMs = 30_000;

const closedPaths = ['/metrics', '/logs/', '/debug/pprof/', '/configz', '/statusz', '/flagz'];

describeOnNewestVersion('the rights of the chart', (cluster) => {
  const podUids: Record<string, string> = {};

  before(async () => {
    const { admin } = cluster();
    await cluster().kubectl(['apply', '-f', crds]);
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
    for (const namespace of ['shop', 'office']) {
      await cluster().createNamespace(namespace);
      const secret = { metadata: { name: objectName }, stringData: { clientSecret: 'x' } };
      await admin.expect('POST', `/api/v1/namespaces/${namespace}/secrets`, secret);
    }
    for (const [index, namespace] of ['shop', 'office'].entries()) {
      const pod = { namespace, name: objectName, node: 'node-a', ip: `10.1.0.${index}` };
      podUids[namespace] = (await runPod(admin, pod)).metadata.uid;
    }
  });

  it(
    'let the process that writes conditions do that, and no more',
    { skip: helm.missing ?? false },
    async () => {
      const namespace = 'rights-conditions';
      const account = { namespace, name: 'nmi-conditions' };
      const { values } = variants['everything, in one namespace'] ?? {};
      await cluster().createNamespace(namespace);
      const objects = rightsIn(namespace, values ?? {});
      await cluster().applyOverHttp(objects.map((object) => stringify(object)).join('---\n'));
      await using actor = await cluster().createServiceAccountClient(account);
      const may = (...call: Tail<Parameters<typeof mayDo>>) => mayDo(actor.api, ...call);
      await eventually(async () => {
        for (const status of statuses) assert.ok(await may(...status), status[1]);
      }, rightsLimitMs);
      assert.ok(await may('apps', 'daemonsets', 'get', { namespace, name: 'nmi' }));
      assert.ok(!(await may('apps', 'daemonsets', 'get', { namespace, name: 'other' })));
      assert.ok(!(await may('apps', 'daemonsets', 'get', { namespace: 'shop', name: 'nmi' })));
      assert.ok(!(await may('apps', 'daemonsets', 'patch', { namespace, name: 'nmi' })));
      assert.ok(await may('', 'secrets', 'get', { namespace: 'shop', name: objectName }));
      assert.ok(!(await may('', 'secrets', 'get', { namespace: 'office', name: objectName })));
      for (const [group, resource, verb] of special) {
        assert.ok(!(await may(group, resource, verb)), `${verb} ${resource}`);
      }
    },
  );

  for (const [index, [name, variant]] of Object.entries(variants).entries()) {
    const account = { namespace: `rights-${index}`, name: accountName };

    describe(`with ${name} on`, { skip: helm.missing ?? false }, () => {
      before(async () => {
        await cluster().createNamespace(account.namespace);
        const objects = rightsIn(account.namespace, variant.values);
        await cluster().applyOverHttp(objects.map((object) => stringify(object)).join('---\n'));
      });

      it('are enough for its purpose', async () => {
        const pod = { namespace: account.namespace, name: 'agent', node: 'node-a', ip: '10.0.0.1' };
        const wish = { ...pod, serviceAccountName: account.name };
        const { uid } = (await runPod(cluster().admin, wish)).metadata;
        const boundTo = { kind: 'Pod', name: 'agent', uid } as const;
        const actor = await cluster().createServiceAccountClient({ ...account, boundTo });
        const { kubeconfigPath } = actor;
        await using client = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' });
        const node = 'node-a';
        await using watches = openWatches({
          client,
          podClient: client.as(new NodeImpersonation({ node, purpose: 'pods', log: keptLog() })),
          node,
          log: keptLog(),
          timing: quick,
          stores: {
            pods: new MapStore<Pod>(),
            identities: new MapStore<Identity>(),
            bindings: new MapStore<Binding>(),
            exceptions: new MapStore<Exception>(),
            grants: new MapStore<IdentityGrant>(),
          },
        });
        await watches.whenSynced();
        await eventually(async () => {
          assert.deepEqual(await whatWorks(client, 'shop', podUids['shop'] ?? ''), variant.inShop);
        }, rightsLimitMs);
        assert.deepEqual(
          await whatWorks(client, 'office', podUids['office'] ?? ''),
          variant.inOffice,
        );
        const secrets = createSecretReader(client);
        const kindOf = async (secret: string) =>
          (await secrets.check({ namespace: 'shop', name: secret })).kind;
        assert.notEqual(await kindOf(objectName), 'missing');
        const mayKnow = variant.inShop.includes('secret');
        assert.equal((await kindOf('another')) === 'missing', mayKnow);
      });

      it('allow nothing else', async () => {
        await using actor = await cluster().createServiceAccountClient(account);
        for (const [group, resource, verb] of [...special, ...statuses]) {
          assert.equal(await mayDo(actor.api, group, resource, verb), false, `${verb} ${resource}`);
        }
        for (const path of closedPaths) assert.equal(await actor.api.probe(path), 403, path);
      });
    });
  }
});

/** The accounts of the chart, and what they may do. */
function rightsIn(namespace: string, values: object): readonly KubeObject[] {
  return objectsOf(renderChart({ helm: helm.programs ?? '', namespace, values })).filter(
    ({ kind }) => /^(?:ServiceAccount|(?:Cluster)?Role(?:Binding)?)$/.test(kind),
  );
}

async function mayDo(
  api: Api,
  group: string,
  kind: string,
  verb: string,
  { namespace, name }: Partial<ObjectName> = {},
): Promise<boolean> {
  const [resource = '', subresource = ''] = kind.split('/');
  const resourceAttributes = { group, resource, subresource, verb, namespace, name };
  const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
  const review = await api.expect('POST', path, { spec: { resourceAttributes } });
  return (review.status as { readonly allowed: boolean }).allowed;
}

/** Names of the features with successful calls; other calls have to be refused, not to fail. */
async function whatWorks(
  client: KubeClient,
  namespace: string,
  podUid: string,
): Promise<readonly string[]> {
  const names = new NodeImpersonation({ node: 'node-a', purpose: 'tokens', log: keptLog() });
  const kinds = {
    secret: (await createSecretReader(client).read({ namespace, name: objectName })).kind,
    token: (
      await requestServiceAccountToken(client.as(names), {
        serviceAccount: { namespace, name: 'default' },
        audience: 'api://AzureADTokenExchange',
        expirationSeconds: 3600,
        boundTo: { name: objectName, uid: podUid },
      })
    ).kind,
    account: await readAccount(client, { namespace, name: 'default' }),
    event: await writeEvent(client, namespace),
  };
  for (const kind of Object.values(kinds)) {
    assert.ok(['found', 'ok', 'known', 'forbidden'].includes(kind), kind);
  }
  return Object.entries(kinds).flatMap(([what, kind]) => (kind === 'forbidden' ? [] : [what]));
}

async function writeEvent(client: KubeClient, namespace: string): Promise<string> {
  const clock = systemClock;
  const log = keptLog();
  using writer = new EventWriter({ client, clock, instance: 'node-a', random: Math.random, log });
  const pod = { apiVersion: 'v1', kind: 'Pod', namespace, name: objectName, uid: 'u' };
  writer.record(pod, 'test', () => ({
    related: undefined,
    type: 'Normal',
    reason: 'Test',
    action: 'Test',
    note: 'A test.',
  }));
  return await eventually(() => {
    const value = (outcome: string) =>
      writer.samples().find(({ labels }) => labels?.['outcome'] === outcome)?.value ?? 0;
    assert.equal(value('written') + value('failed'), 1);
    return value('written') === 1 ? 'ok' : 'forbidden';
  });
}

async function readAccount(client: KubeClient, account: ObjectName): Promise<string> {
  const accounts = createServiceAccounts({ client, clock: systemClock, staleLimitMs: 0 });
  const { promise, resolve } = Promise.withResolvers<undefined>();
  accounts.onChange(() => {
    resolve(undefined);
  });
  accounts.peekFresh(account);
  await promise;
  return accounts.peekFresh(account)?.kind ?? 'not read';
}
