import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { createFakeAz, ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders', app: 'web' } };
const identity = createIdentity('orders', { type: 0, clientID: clientA, resourceID: ordersId });

function testBedOf(changes = {}, az = createFakeAz()): Recorded {
  return {
    ...boundTestBed({ [kinds.identities]: [identity], ...changes }),
    other: (program, args) => {
      if (program === 'az') return az.run(args);
      return ok(args[0] === 'annotate' ? 'annotated\n' : '{"issuer":"https://oidc.example/"}');
    },
  };
}

function createAccount(
  name: string,
  annotations: Readonly<Record<string, string>>,
  fields = {},
): RawObject {
  return { ...createObject('ServiceAccount', name, {}, { annotations }, 'v1'), ...fields };
}

/** The calls that change the cluster. */
const changesOf = (calls: readonly (readonly string[])[]) =>
  calls
    .map((words) => words.join(' '))
    .filter((line) => line.startsWith('kubectl ') && !line.includes(' --raw='));

const annotate = (account: string, ...entries: readonly string[]) =>
  [
    `kubectl annotate serviceaccount ${account} --namespace=shop --field-manager=kubectl-nmi`,
    ...entries,
    '--context=dev',
    '--request-timeout=15s',
  ].join(' ');
const clientIdKey = 'azure.workload.identity/client-id';

describe('kubectl nmi migrate to-workload-identity', () => {
  const owner = { kind: 'ReplicaSet', name: 'web-1' };
  const deployment = createObject('Deployment', 'web', {
    selector: { matchLabels: { app: 'web' } },
  });
  it('leaves out a chain, which federation cannot begin', async () => {
    const application = { tenantID: clientB, clientID: clientB };
    const chain = createIdentity('orders', { type: 4, clientID: clientA, application });
    const testBed = testBedOf({
      pods: [createPod('web', bound)],
      [kinds.identities]: [chain],
    });
    const { stdout } = await play(['migrate', 'to-workload-identity'], testBed);
    assert.match(stdout, /is left out: AzureIdentity orders is a chain, .*AADSTS700231/);
  });

  it('annotates service accounts, federates them, and labels pod templates', async () => {
    const pods = [
      createPod('web-1', { ...bound, owner, ip: '10.1.0.1' }),
      createPod('web-2', { ...bound, owner, ip: '10.1.0.2' }),
    ];
    const { stdout } = await play(
      ['migrate', 'to-workload-identity'],
      testBedOf({ pods, [kinds.deployments]: [deployment] }),
    );
    assert.match(
      stdout,
      new RegExp(
        `^# kubectl --context=dev annotate serviceaccount default --namespace=shop --field-manager=kubectl-nmi ${clientIdKey}=${clientA}$`,
        'm',
      ),
    );
    assert.equal(stdout.match(/patch deployment web/g)?.length, 1);
    assert.doesNotMatch(stdout, /is used with|is left out/);
    assert.match(stdout, /# az identity federated-credential create --name shop-default/);
  });

  it('counts credentials, and names service accounts with several identities', async () => {
    const pods = Array.from({ length: 21 }, (_, index) =>
      createPod(`p${index}`, {
        ...bound,
        ip: `10.1.0.${index + 1}`,
        spec: { serviceAccountName: `a${index}` },
      }),
    );
    const changes = {
      pods,
      [kinds.identities]: [
        identity,
        createIdentity('zebra', { type: 3, clientID: clientB, tenantID: 'contoso.example' }),
      ],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('z', { azureIdentity: 'zebra', selector: 'orders', serviceAccount: 'a0' }),
        createBinding('none', { azureIdentity: 'none', selector: 'orders' }),
      ],
    };
    const { stdout } = await play(['migrate', 'to-workload-identity'], testBedOf(changes));
    assert.match(
      stdout,
      /# 21 service accounts, and Azure allows 20 federated credentials for an identity/,
    );
    assert.match(stdout, /Service account a0 is used with zebra too/);
    const own = await play(
      ['migrate', 'to-workload-identity'],
      testBedOf({
        ...changes,
        [kinds.bindings]: [createBinding('z', { azureIdentity: 'zebra', selector: 'orders' })],
      }),
    );
    assert.match(own.stdout, / azure\.workload\.identity\/tenant-id=contoso\.example$/m);
  });

  it('has nothing to do if no pod is bound', async () => {
    assert.match(
      (await play(['migrate', 'to-workload-identity'], testBedOf({ pods: [] }))).stderr,
      /no pod of namespace shop is bound/,
    );
  });
});

describe('the service accounts of migrate to-workload-identity', () => {
  const apply = ['migrate', 'to-workload-identity', '--apply'];

  it('get annotations, and nothing else of them is written', async () => {
    const account = createAccount(
      'default',
      { 'example.org/team': 'shop' },
      { imagePullSecrets: [{ name: 'pull' }], automountServiceAccountToken: false },
    );
    const { code, stdout, calls, inputs } = await play(
      apply,
      testBedOf({ pods: [createPod('web', bound)], serviceaccounts: [account] }),
    );
    assert.equal(code, 0);
    assert.deepEqual(changesOf(calls), [annotate('default', `${clientIdKey}=${clientA}`)]);
    assert.deepEqual(new Set(inputs), new Set(['']));
    assert.match(stdout, /\nannotated\n$/);
    const text = JSON.parse(
      (await play(['migrate', 'to-workload-identity', '-o', 'json'], testBedOf())).stdout,
    ) as { objects: object[]; kubectl: string[][] };
    assert.deepEqual([text.objects, text.kubectl[0]?.[0]], [[], 'annotate']);
  });

  it('are not written again', async () => {
    const account = createAccount('default', { [clientIdKey]: ` ${clientA.toUpperCase()}` });
    const { code, calls } = await play(apply, testBedOf({ serviceaccounts: [account] }));
    assert.deepEqual([code, changesOf(calls)], [0, []]);
  });

  it('keep what another owner wrote, and the others go on', async () => {
    const az = createFakeAz();
    const pods = ['robot', 'web'].map((serviceAccountName, index) =>
      createPod(serviceAccountName, {
        ...bound,
        ip: `10.1.0.${index + 1}`,
        spec: { serviceAccountName },
      }),
    );
    const testBed = testBedOf(
      {
        pods,
        serviceaccounts: [
          createAccount('robot', { [clientIdKey]: clientB }),
          createAccount('web', {}),
        ],
      },
      az,
    );
    const { code, stdout, calls } = await play(apply, testBed);
    assert.equal(code, 1);
    assert.match(
      stdout,
      new RegExp(
        `# Service account shop/robot is left out: its annotation ${clientIdKey} is "${clientB}", and AzureIdentity orders has ${clientA}\\. .*kubectl --context=dev -n shop annotate serviceaccount robot ${clientIdKey}=${clientA} --overwrite`,
      ),
    );
    assert.deepEqual(changesOf(calls), [annotate('web', `${clientIdKey}=${clientA}`)]);
    assert.deepEqual(
      stdout.match(/^# az .*/gm)?.map((line) => /serviceaccount:\S+/.exec(line)?.[0]),
      ['serviceaccount:shop:web'],
    );
    assert.equal((await play(['migrate', 'to-workload-identity'], testBed)).code, 0);

    const tenant = createIdentity('orders', {
      type: 3,
      clientID: clientA,
      tenantID: 'one.example',
    });
    const other = createAccount('default', { 'azure.workload.identity/tenant-id': 'two.example' });
    const differs = await play(
      apply,
      testBedOf({ [kinds.identities]: [tenant], serviceaccounts: [other] }),
    );
    assert.deepEqual([differs.code, changesOf(differs.calls)], [1, []]);
    assert.match(
      differs.stdout,
      /tenant-id is "two\.example", and AzureIdentity orders has one\.exam/,
    );
  });

  it('name the identity that the pods get today: the oldest', async () => {
    const old = createIdentity('zebra', { type: 0, clientID: clientB, resourceID: ordersId });
    const zebra = {
      ...old,
      metadata: { ...(old['metadata'] as object), creationTimestamp: '2024-01-01T00:00:00Z' },
    };
    const changes = {
      [kinds.identities]: [identity, zebra],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('z', { azureIdentity: 'zebra', selector: 'orders' }),
      ],
    };
    const explained = await play(['explain', 'pod', 'web'], testBedOf(changes));
    assert.match(explained.stdout, /zebra/);
    const { stdout, calls } = await play(apply, testBedOf(changes));
    assert.deepEqual(changesOf(calls), [annotate('default', `${clientIdKey}=${clientB}`)]);
    assert.match(stdout, /system:serviceaccount:shop:default becomes zebra\n/);
    assert.match(stdout, /Service account default is used with orders too/);
  });

  it('are shared by pods that get different identities: those are named', async () => {
    const changes = {
      pods: [
        createPod('web', { ...bound, ip: '10.1.0.1' }),
        createPod('stripes', { labels: { aadpodidbinding: 'zebra' }, ip: '10.1.0.2' }),
      ],
      [kinds.identities]: [identity, createIdentity('zebra', { type: 0, clientID: clientB })],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('zebra', { azureIdentity: 'zebra', selector: 'zebra' }),
      ],
    };
    const { stdout } = await play(['migrate', 'to-workload-identity'], testBedOf(changes));
    assert.match(stdout, /serviceaccount:shop:default becomes orders\n/);
    assert.match(
      stdout,
      /# Pods stripes get zebra today: set AZURE_CLIENT_ID to the client id of zebra in them before you label them\./,
    );
  });

  it('do not name an identity whose client id is not known', async () => {
    const nameless = createIdentity('orders', { type: 0, resourceID: ordersId });
    const az = createFakeAz();
    const testBed = testBedOf({ [kinds.identities]: [nameless] }, az);
    const { code, stdout, calls } = await play([...apply, '-o', 'json'], testBed);
    assert.deepEqual([code, changesOf(calls), az.lines], [1, [], []]);
    const { notes } = JSON.parse(stdout) as { notes: string[] };
    assert.equal(
      notes[0],
      `Service account shop/default is left out: AzureIdentity orders has no client id. Find it: az identity show --ids ${ordersId} --query clientId --output tsv. Then set spec.clientID: kubectl --context=dev -n shop edit ${kinds.identities} orders`,
    );
    const shown = await play(['migrate', 'to-workload-identity'], testBed);
    assert.doesNotMatch(shown.stdout, /client-id=|client-id: |federated-credential create/);
    const wrong = createIdentity('orders', { type: 0, clientID: 'orders', resourceID: '' });
    const other = await play(apply, testBedOf({ [kinds.identities]: [wrong] }));
    assert.equal(other.code, 1);
    assert.match(other.stdout, /has a client id that is no GUID\. Find it: az identity list/);
  });
});
