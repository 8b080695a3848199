/**
 * The definitions of the custom resources on real servers: objects from before an upgrade, what the
 * rules accept and refuse, and what kubectl shows.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { Cluster } from './support/cluster.ts';
import type { KubeBody } from './support/api.ts';
import { readOldDefinitions } from './support/go-module.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';

const crds = join(import.meta.dirname, '../../deploy/crds.yaml');

const group = 'aadpodidentity.k8s.io';
const root = `/apis/${group}/v1`;
const mergePatch = { contentType: 'application/merge-patch+json' };
const jsonPatch = { contentType: 'application/json-patch+json' };
const client = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const tenant = '7e570000-1ab0-4000-8000-000000000001';
const application = { tenantID: tenant, clientID: client };
const chain = { type: 4, clientID: client, application };
const resource = `/subscriptions/${tenant}/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shop`;
const crdPath = (plural: string): string =>
  `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${plural}.${group}`;

const plurals = {
  AzureIdentity: 'azureidentities',
  AzureIdentityBinding: 'azureidentitybindings',
  AzurePodIdentityException: 'azurepodidentityexceptions',
  AzureAssignedIdentity: 'azureassignedidentities',
} as const;
type Kind = keyof typeof plurals;

interface Given {
  readonly kind: Kind;
  readonly name: string;
  readonly spec: unknown;
  readonly status?: unknown;
  readonly metadata?: object;
}

const objectOf =
  (kind: Kind) =>
  (name: string, spec: unknown, more: object = {}): Given => ({ kind, name, spec, ...more });
const identityNamed = objectOf('AzureIdentity');
const bindingNamed = objectOf('AzureIdentityBinding');
const exceptionNamed = objectOf('AzurePodIdentityException');

/** Objects that work with aad-pod-identity and use every field of its definitions. */
const good: readonly Given[] = [
  identityNamed(
    'everything',
    {
      type: 1,
      resourceID: 'not used',
      clientID: client.toUpperCase(),
      clientPassword: { name: 'secret', namespace: 'elsewhere' },
      tenantID: tenant,
      auxiliaryTenantIDs: [tenant, 'contoso.onmicrosoft.com'],
      adResourceID: 'https://management.azure.com/',
      adEndpoint: 'https://login.microsoftonline.com/',
      replicas: 3,
      metadata: {},
    },
    {
      status: { availableReplicas: 2, metadata: {} },
      metadata: {
        annotations: { 'aadpodidentity.k8s.io/Behavior': 'namespaced' },
        labels: { team: 'shop' },
      },
    },
  ),
  identityNamed('user', { type: 0, resourceID: resource, clientID: client }),
  identityNamed('no-type', { resourceID: resource, clientID: client }),
  identityNamed('no-resource', { type: 0, clientID: client }),
  identityNamed('pasted', {
    type: 0,
    resourceID: ` https://x${resource.toUpperCase()}/ `,
    clientID: ` ${client}\n`,
  }),
  identityNamed('nulls', { type: 0, clientID: client, auxiliaryTenantIDs: null, replicas: null }),
  identityNamed('certificate', {
    type: 2,
    clientID: client,
    tenantID: 'Contoso.com',
    clientPassword: { name: 'cert' },
  }),
  bindingNamed(
    'binding',
    { azureIdentity: 'user.a-1', selector: 'Shop_1.a-b', weight: 10, metadata: {} },
    { status: { availableReplicas: 1, metadata: {} } },
  ),
  exceptionNamed(
    'exception',
    { podLabels: { 'kubernetes.azure.com/managedby': 'AKS', empty: '' }, metadata: {} },
    { status: { status: 'x', metadata: {} } },
  ),
];

/** Objects that the old definitions accepted, although they gave no pod a token. */
const bad: readonly Given[] = [
  identityNamed('no-spec', undefined),
  identityNamed('empty', { type: 0, resourceID: '', clientID: '' }),
  identityNamed('capitals', { Type: 0, ClientID: client, ResourceID: 'x' }),
  identityNamed('bad-type', { type: 7, clientID: client }),
  identityNamed('bad-client', { type: 0, clientID: 'my-identity' }),
  identityNamed('bad-resource', { type: 0, resourceID: '/r', clientID: client }),
  identityNamed('bad-secret', { type: 1, clientID: client, tenantID: 'x y' }),
  identityNamed('bad-tenants', {
    type: 1,
    clientID: client,
    auxiliaryTenantIDs: ['a', 'b', 'c', 'd'],
  }),
  bindingNamed('capitals', { AzureIdentity: 'a', Selector: 'a' }),
  bindingNamed('bad-names', { azureIdentity: 'A b', selector: '-' }),
  exceptionNamed('capitals', { PodLabels: { a: 'b' } }),
];

const assigned: Given = {
  kind: 'AzureAssignedIdentity',
  name: 'shop-app-default-user',
  spec: {
    azureIdentityRef: {
      apiVersion: `${group}/v1`,
      kind: 'AzureIdentity',
      metadata: { name: 'user' },
      spec: { type: 0, clientID: 'anything', resourceID: '/r' },
    },
    azureBindingRef: {
      apiVersion: `${group}/v1`,
      kind: 'AzureIdentityBinding',
      metadata: { name: 'b' },
      spec: { azureIdentity: 'user', selector: 'shop' },
    },
    pod: 'app',
    podNamespace: 'shop',
    nodename: 'node-a',
    replicas: 1,
  },
  status: { status: 'Assigned', availableReplicas: 1 },
  metadata: { finalizers: ['azureassignedidentity.finalizers.aadpodidentity.k8s.io'] },
};

function collection(kind: Kind): string {
  return `${root}/namespaces/shop/${plurals[kind]}`;
}

function manifestOf({ kind, name, spec, status, metadata }: Given): object {
  return {
    apiVersion: `${group}/v1`,
    kind,
    metadata: { name, namespace: 'shop', ...metadata },
    ...(spec === undefined ? {} : { spec }),
    ...(status === undefined ? {} : { status }),
  };
}

const pathOf = ({ kind, name }: Given): string => `${collection(kind)}/${name}`;

/** The fields that the author wrote. */
function contentOf({ metadata, spec, status }: KubeBody): object {
  const { name, uid, labels, annotations, finalizers } = metadata;
  return { name, uid, labels, annotations, finalizers, spec, status };
}

/** A spec that is refused, and the expected message. */
type Refusal = readonly [spec: object, said: RegExp];

const refused: Readonly<Partial<Record<Kind, readonly Refusal[]>>> = {
  AzureIdentity: [
    [{ type: 5 }, /spec\.type: Unsupported value: 5: supported values: "0", "1", "2", "3", "4"/],
    [{ ...chain, type: 0 }, /spec\.type: .*application and agentIdentity are of type 4/],
    [
      { type: 3, clientID: client, tenantID: tenant, agentIdentity: client },
      /spec\.type: .*application and agentIdentity are of type 4/,
    ],
    [{ type: 4, clientID: client }, /spec\.application: .*type 4 needs application\.clientID/],
    [
      { ...chain, application: { tenantID: 'common', clientID: client } },
      /spec\.application: .*type 4 needs/,
    ],
    [{ ...chain, clientID: '' }, /spec\.clientID: .*needs the managed identity/],
    [{ ...chain, resourceID: 'x' }, /spec\.resourceID: .*user-assigned identity/],
    [{ ...chain, federation: 'pod' }, /spec\.federation: .*AADSTS700231/],
    [{ ...chain, clientID: '', federation: 'pod' }, /spec\.agentIdentity: .*of type 3/],
    [{ ...chain, agentIdentity: 'x' }, /spec\.agentIdentity: .*must be a GUID/],
    [
      { ...chain, application: { ...application, application } },
      /spec\.application: .*chain of three: .*AADSTS700231/,
    ],
    [{ type: -1 }, /spec\.type: Unsupported value: -1/],
    [{ type: '0' }, /spec\.type: Invalid value: "string": .*must be of type integer/],
    [
      { type: 0, clientID: 'my-identity' },
      /spec\.clientID: Invalid value: .*must be a GUID, the client id of the identity or application$/,
    ],
    [{ clientID: `${client}0` }, /spec\.clientID: .*must be a GUID/],
    [{ clientID: `{${client}}` }, /spec\.clientID: .*must be a GUID/],
    [{ clientID: 'x'.repeat(129) }, /spec\.clientID: Too long: may not be more than 128/],
    [
      { type: 0, resourceID: '/subscriptions/s/resourcegroups/g', clientID: client },
      /spec\.resourceID: Invalid value: .*must be the Azure resource id of a user-assigned identity, \/subscriptions\//,
    ],
    [{ resourceID: resource.replace('user', 'system') }, /spec\.resourceID: .*user-assigned/],
    [{ resourceID: 'x'.repeat(1025) }, /spec\.resourceID: Too long: may not be more than 1024/],
    [
      { type: 3, tenantID: tenant },
      /spec\.clientID: .*types 1, 2 and 3 need the client id of the application/,
    ],
    [{ type: 3, tenantID: tenant, clientID: ' ' }, /spec\.clientID: .*need the client id/],
    [
      { type: 3, clientID: client },
      /spec\.tenantID: .*types 1, 2 and 3 need a tenant, as a GUID or a domain name/,
    ],
    [{ type: 3, clientID: client, tenantID: 'common' }, /spec\.tenantID: .*need a tenant/],
    [{ type: 3, clientID: client, tenantID: 'a/b.com' }, /spec\.tenantID: .*need a tenant/],
    [
      { type: 1, clientID: client, tenantID: tenant },
      /spec\.clientPassword: .*types 1 and 2 need the name of the Secret in clientPassword\.name/,
    ],
    [
      { type: 2, clientID: client, tenantID: tenant, clientPassword: { name: '' } },
      /spec\.clientPassword: .*types 1 and 2 need/,
    ],
    [
      { type: 1, auxiliaryTenantIDs: ['a', 'b', 'c', 'd'] },
      /spec\.auxiliaryTenantIDs: Too many: 4: must have at most 3 items/,
    ],
    [
      { type: 3, clientID: client, tenantID: tenant, federation: 'cluster' },
      /spec\.federation: Unsupported value: "cluster": supported values: "", "pod", "node", "binding"/,
    ],
    [
      { clientID: client, federation: 'pod' },
      /spec\.federation: .*only types 3 and 4 are federated/,
    ],
    [
      { type: 4, federation: 'binding', application, agentIdentity: client },
      /spec\.federation: .*type 4 by no identity binding/,
    ],
    ...['yesterday', '2026-11-30', '2026-11-30 06:00:00', '2026-13-30T06:00:00Z', ''].map(
      (notBefore): readonly [object, RegExp] => [
        { clientID: client, notBefore },
        /spec\.notBefore: Invalid value/,
      ],
    ),
    [
      { clientID: client, allowedResources: [] },
      /spec\.allowedResources: Invalid value: 0: .*should have at least 1 items/,
    ],
    [
      { clientID: client, allowedResources: ['https://a.example', 'two words'] },
      /spec\.allowedResources\[1\]: Invalid value: "two words"/,
    ],
    [{ clientID: client, allowedResources: [''] }, /spec\.allowedResources\[0\]: Invalid value/],
    [
      { clientID: client, allowedResources: 'x' },
      /spec\.allowedResources: Invalid value: "string"/,
    ],
  ],
  AzureIdentityBinding: [
    [
      { azureIdentity: 'Shop', selector: 'shop' },
      /spec\.azureIdentity: .*must be the name of an AzureIdentity: lower case letters, digits, "-" and "\."/,
    ],
    [{ azureIdentity: 'shop/shop' }, /spec\.azureIdentity: .*must be the name of an AzureIdentity/],
    [
      { azureIdentity: 'shop', selector: 'two words' },
      /spec\.selector: .*must be a value that a label can have: letters, digits, "-", "_" and "\.", the/,
    ],
    [{ selector: '-' }, /spec\.selector: .*a value that a label can have/],
    [{ selector: 'x'.repeat(64) }, /spec\.selector: Too long: may not be more than 63/],
    [
      { azureIdentity: 'shop', selector: 'shop', serviceAccount: 'shop/robot' },
      /spec\.serviceAccount: .*must be the name of a service account: lower case letters, digits/,
    ],
    [{ serviceAccount: 'Robot' }, /spec\.serviceAccount: .*the name of a service account/],
    [{ weight: '1' }, /spec\.weight: Invalid value: "string"/],
  ],
  AzurePodIdentityException: [
    [{ podLabels: { app: 1 } }, /spec\.podLabels\.app: Invalid value: "integer"/],
  ],
};

/** New objects, accepted in addition to {@link good}. */
const taken: readonly Given[] = [
  ...[
    { type: 3, clientID: client, tenantID: tenant },
    chain,
    { type: 4, resourceID: resource, application, agentIdentity: client },
    { type: 4, federation: 'node', application, agentIdentity: client },
    ...['', 'pod', 'node', 'binding'].map((federation) => ({
      ...{ type: 3, clientID: client, tenantID: 'a.b-c.example' },
      federation,
    })),
    {},
    ...['2026-11-30T06:00:00Z', '2026-11-30T07:00:00.5+01:00', null].map((notBefore) => ({
      clientID: client,
      notBefore,
    })),
    { clientID: client, allowedResources: ['https://a.example/', tenant] },
  ].map((spec) => identityNamed('new', spec)),
  ...[
    ...['', 'robot', 'team.robot-1'].map((serviceAccount) => ({
      azureIdentity: 'shop',
      selector: 'shop',
      serviceAccount,
    })),
    { azureIdentity: '', selector: '' },
    { selector: 'x'.repeat(63) },
  ].map((spec) => bindingNamed('new', spec)),
  exceptionNamed('new', { podLabels: {} }),
];

describeOnEveryVersion('the custom resources', (cluster) => {
  const stored = new Map<Given, KubeBody>();
  let oldDefinition: KubeBody | undefined;

  const get = (given: Given): Promise<KubeBody> => cluster().admin.expect('GET', pathOf(given));

  before(async () => {
    const { admin } = cluster();
    await cluster().createNamespace('shop');
    await cluster().apply(readOldDefinitions());
    await untilEstablished(cluster());
    for (const given of [...good, ...bad, assigned]) {
      await admin.expect('POST', collection(given.kind), manifestOf(given));
      stored.set(given, await get(given));
    }
    oldDefinition = await admin.expect('GET', crdPath('azureassignedidentities'));
    // The command of the README.
    await cluster().kubectl(['apply', '-f', crds]);
    await untilEstablished(cluster());
    await eventually(async () => {
      for (const kind of ['AzureIdentity', 'AzureIdentityBinding'] as const) {
        const spec = { clientID: 'x', selector: '-' };
        const body = manifestOf({ kind, name: 'probe', spec });
        const { status } = await admin.request('POST', `${collection(kind)}?dryRun=All`, body);
        assert.equal(status, 422);
      }
    }, 30_000);
  });

  describe('from before an upgrade', () => {
    it('are unchanged, even those that would be refused now', async () => {
      for (const [given, old] of stored) assert.deepEqual(await get(given), old, given.name);
      for (const kind of Object.keys(plurals) as Kind[]) {
        const { items } = await cluster().admin.expect('GET', collection(kind));
        const here = [...stored.keys()].filter((given) => given.kind === kind);
        assert.equal(items?.length, here.length);
      }
    });

    it('lost only misspelt fields to the old definitions', () => {
      for (const given of good) {
        const old = stored.get(given);
        assert.deepEqual(old?.['spec'], given.spec, given.name);
        assert.deepEqual(old?.status, given.status, given.name);
      }
      for (const given of bad.filter(({ name }) => name === 'capitals')) {
        assert.deepEqual(stored.get(given)?.['spec'], {});
      }
    });

    it('are written back, patched and applied without loss', async () => {
      const { admin } = cluster();
      for (const given of [...good, ...bad]) {
        const old = await get(given);
        const put = await admin.expect('PUT', pathOf(given), old);
        assert.deepEqual(contentOf(put), contentOf(old), `put ${given.name}`);
        assert.equal(put.metadata.resourceVersion, old.metadata.resourceVersion, 'it is unchanged');

        const labels = { ...old.metadata.labels, upgraded: 'yes' };
        await admin.expect('PATCH', pathOf(given), { metadata: { labels } }, mergePatch);
        assert.deepEqual(
          contentOf(await get(given)),
          { ...contentOf(old), labels },
          `patched ${given.name}`,
        );

        // Fields outside the definition were never applied: the server drops them on any other
        // write.
        if (given.name === 'capitals') continue;
        const file = JSON.stringify({ ...manifestOf(given), status: undefined });
        await cluster().applyOverHttp(file);
        assert.deepEqual(
          contentOf(await get(given)),
          { ...contentOf(old), labels },
          `applied ${given.name}`,
        );
      }
    });

    it('can be changed in their other fields, and repaired', async () => {
      const { admin } = cluster();
      const patch = (name: string, spec: object) =>
        admin.request('PATCH', `${collection('AzureIdentity')}/${name}`, { spec }, mergePatch);
      for (const name of ['bad-type', 'bad-client']) {
        const { status, body } = await patch(name, { resourceID: resource });
        assert.equal(status, 200, body.message ?? '');
      }
      // A rule over several fields is checked again when any field of the spec changes.
      const { body: refusal } = await patch('bad-tenants', { replicas: 1 });
      assert.match(refusal.message ?? '', /spec\.tenantID: .*need a tenant/);
      assert.doesNotMatch(refusal.message ?? '', /auxiliaryTenantIDs/);
      const worse = await patch('bad-client', { clientID: 'another-name' });
      assert.equal(worse.status, 422);
      assert.match(worse.body.message ?? '', /spec\.clientID: .*must be a GUID/);
      assert.equal((await patch('bad-client', { clientID: client })).status, 200);
      assert.equal((await patch('bad-resource', { resourceID: resource })).status, 200);
    });

    it('can be deleted, whatever is wrong with them and whatever finalizer they have', async () => {
      const { admin } = cluster();
      for (const given of bad) {
        const finalizers = ['example.com/hold'];
        await admin.expect('PATCH', pathOf(given), { metadata: { finalizers } }, mergePatch);
        await admin.expect('DELETE', pathOf(given));
        assert.notEqual((await get(given)).metadata['deletionTimestamp'], undefined);
        const release = [{ op: 'remove', path: '/metadata/finalizers' }];
        await admin.expect('PATCH', pathOf(given), release, jsonPatch);
        assert.equal((await admin.request('GET', pathOf(given))).status, 404);
      }
    });
  });

  for (const [kind, cases] of Object.entries(refused) as [Kind, readonly Refusal[]][]) {
    it(`of the kind ${kind} are refused with a message that names the error`, async () => {
      for (const [spec, said] of cases) {
        const body = manifestOf({ kind, name: 'new', spec });
        const answer = await cluster().admin.request(
          'POST',
          `${collection(kind)}?dryRun=All`,
          body,
        );
        assert.equal(answer.status, 422, JSON.stringify(spec));
        assert.match(answer.body.message ?? '', said);
      }
    });
  }

  it('are accepted as before, and with federation', async () => {
    for (const given of [...good.map((each) => ({ ...each, name: 'new' })), ...taken]) {
      const path = `${collection(given.kind)}?dryRun=All`;
      const { spec } = await cluster().admin.expect('POST', path, manifestOf(given));
      assert.deepEqual(spec, given.spec);
    }
  });

  it('have a status apart from their spec', async () => {
    const { admin } = cluster();
    for (const kind of Object.keys(refused) as Kind[]) {
      const given = good.find((each) => each.kind === kind);
      assert.ok(given !== undefined);
      const old = await get(given);
      const changed = { metadata: { changed: 'x' }, status: 'x', availableReplicas: 9 };
      await admin.expect('PATCH', pathOf(given), { status: changed }, mergePatch);
      assert.deepEqual((await get(given)).status, old.status);
      const path = `${pathOf(given)}/status`;
      const next = { spec: null, status: { metadata: {}, ...statusOf(kind) } };
      await admin.expect('PATCH', path, next, mergePatch);
      const { spec, status, metadata } = await get(given);
      assert.deepEqual(spec, old['spec']);
      assert.deepEqual(status, { metadata: {}, ...statusOf(kind) });
      assert.equal(metadata['generation'], old.metadata['generation']);
    }
  });

  it('have short names, a category, columns and explanations', async () => {
    const shown = async (...words: readonly string[]): Promise<readonly string[]> =>
      (await cluster().kubectl([...words, '--namespace=shop'])).split('\n');
    const [head, ...rows] = await shown('get', 'azid', '--output=wide');
    assert.match(
      head ?? '',
      /^NAME +TYPE +CLIENTID +READY +REASON +AGE +MESSAGE +TENANTID +RESOURCEID *$/,
    );
    assert.ok(rows.some((row) => /^user +0 +431054d5-\S+ +\S+ +\/subscriptions\//.test(row)));
    const [bindingHead, binding] = await shown('get', 'azidb');
    assert.match(
      bindingHead ?? '',
      /^NAME +AZUREIDENTITY +SELECTOR +READY +REASON +AGE +MESSAGE *$/,
    );
    assert.match(binding ?? '', /^binding +user\.a-1 +Shop_1\.a-b +/);
    const [exceptionHead, exception] = await shown('get', 'azidx');
    assert.match(exceptionHead ?? '', /^NAME +PODLABELS +AGE *$/);
    assert.match(
      exception ?? '',
      /^exception +\{.*"kubernetes\.azure\.com\/managedby":"AKS".*\} +/,
    );
    const all = await shown('get', 'podidentity', '--output=name');
    assert.deepEqual(
      [...new Set(all.map((line) => line.split('/')[0]))].filter((kind) => kind !== '').toSorted(),
      ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions']
        .map((plural) => `${singularOf(plural)}.${group}`)
        .toSorted(),
    );
    const explained = (await shown('explain', 'azureidentity.spec')).join('\n');
    assert.match(explained, /tenantID\s+<string>\s+Types 1 to 3\. A GUID or a domain name\./);
  });

  it('accept grants, and refuse those that grant nothing or too much', async () => {
    const { admin } = cluster();
    const path = `${root}/azureidentitygrants`;
    const grant = (name: string, spec: unknown) => ({
      apiVersion: `${group}/v1`,
      kind: 'AzureIdentityGrant',
      metadata: { name },
      spec,
    });
    await admin.expect(
      'POST',
      path,
      grant('shop', {
        namespaces: ['shop', '*'],
        clientIDs: [client, client.toUpperCase()],
        resourceIDs: [resource],
        nodeIdentities: true,
      }),
    );
    const wrong: readonly (readonly [spec: unknown, said: RegExp])[] = [
      [undefined, /spec: Required value/],
      [{ clientIDs: [client] }, /spec\.namespaces: Required value/],
      [{ namespaces: [], clientIDs: [client] }, /should have at least 1 items/],
      [{ namespaces: ['shop'] }, /grants nothing; name clientIDs, resourceIDs or nodeIdentities/],
      [{ namespaces: ['shop'], clientIDs: [], nodeIdentities: false }, /grants nothing/],
      [{ namespaces: ['shop-*'], clientIDs: [client] }, /spec\.namespaces\[0\]: Invalid value/],
      [{ namespaces: ['shop'], clientIDs: ['mine'] }, /spec\.clientIDs\[0\]: Invalid value/],
      [{ namespaces: ['shop'], resourceIDs: ['/x'] }, /spec\.resourceIDs\[0\]: Invalid value/],
      [{ namespaces: ['shop', 'shop'], clientIDs: [client] }, /spec\.namespaces\[1\]: Duplicate/],
      [
        { namespaces: Array.from({ length: 65 }, (_, n) => `n-${n}`), clientIDs: [client] },
        /spec\.namespaces: Too many: 65: must have at most 64 items/,
      ],
    ];
    for (const [spec, said] of wrong) {
      const { status, body } = await admin.request('POST', path, grant('wrong', spec));
      assert.equal(status, 422, JSON.stringify(spec));
      assert.match(body.message ?? '', said);
    }
    const rows = (await cluster().kubectl(['get', 'azidg'])).split('\n');
    assert.match(rows[0] ?? '', /^NAME +NAMESPACES +CLIENTIDS +NODE +AGE *$/);
    assert.match(rows[1] ?? '', /^shop +\["shop","\*"\] +\["431054d5-.* +true +/);
    const all = await cluster().kubectl(['get', 'podidentity', '--output=name']);
    assert.match(all, /^azureidentitygrant\.aadpodidentity\.k8s\.io\/shop$/m);
    await admin.expect('DELETE', `${path}/shop`);
  });

  it('of the fourth old kind are left alone, by an installation and by its removal', async () => {
    const { admin } = cluster();
    const path = crdPath('azureassignedidentities');
    const untouched = async () => {
      const { spec, metadata } = await admin.expect('GET', path);
      assert.deepEqual([spec, metadata], [oldDefinition?.['spec'], oldDefinition?.metadata]);
      assert.deepEqual(await get(assigned), stored.get(assigned));
    };
    await untouched();
    await cluster().kubectl(['delete', '-f', crds, '--wait=false']);
    await eventually(async () => {
      for (const kind of Object.keys(refused) as Kind[]) {
        assert.equal((await admin.request('GET', crdPath(plurals[kind]))).status, 404);
      }
    }, 30_000);
    await untouched();
    const metadata = { finalizers: null };
    await admin.expect('PATCH', pathOf(assigned), { metadata }, mergePatch);
    await admin.expect('DELETE', pathOf(assigned));
  });
});

function statusOf(kind: Kind): object {
  return kind === 'AzurePodIdentityException' ? { status: 'new' } : { availableReplicas: 5 };
}

function singularOf(plural: string): string {
  return plural.replace(/ies$/, 'y').replace(/s$/, '');
}

async function untilEstablished(cluster: Cluster): Promise<void> {
  await cluster.kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
}
