import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import type { RawObject } from '../../../../src/kubectl/base/object.ts';
import { createFakeAz, ordersId, tenant } from '../../../kubectl/support/fake-az.ts';
import {
  type Recorded,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ok,
  play,
} from '../../../kubectl/support/recorded-kubectl.ts';

const managed = createIdentity('orders', {
  type: 0,
  clientID: clientA,
  resourceID: ordersId.toUpperCase(),
});

const exportBedOf = (changes = {}) => boundTestBed({ [kinds.identities]: [managed], ...changes });

describe('kubectl nmi migrate', () => {
  it('needs a verb', async () => {
    const { code, stderr } = await play('migrate', exportBedOf());
    assert.deepEqual([code, stderr.includes('No verb is given after migrate.')], [2, true]);
  });
});

describe('kubectl nmi migrate export-addon', () => {
  it('has the author’s fields, and none of the server or the add-on', async () => {
    const object = {
      ...managed,
      metadata: {
        name: 'orders',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        managedFields: [{}],
        generation: 3,
        labels: { 'addonmanager.kubernetes.io/mode': 'Reconcile', team: 'shop' },
        annotations: {
          'kubectl.kubernetes.io/last-applied-configuration': '{}',
          'shop.example/contact': 'orders',
        },
      },
      status: { availableReplicas: 1 },
    };
    const { stdout } = await play(
      'migrate export-addon',
      exportBedOf({ [kinds.identities]: [object] }),
    );
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(first, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: {
        name: 'orders-copy',
        namespace: 'shop',
        labels: { team: 'shop' },
        annotations: { 'shop.example/contact': 'orders' },
      },
      spec: { type: 0, clientID: clientA, resourceID: ordersId.toUpperCase() },
    });
    const { kind, spec } = second as { kind: string; spec: { azureIdentity: string } };
    assert.deepEqual([kind, spec.azureIdentity], ['AzureIdentityBinding', 'orders-copy']);
  });

  it('leaves the names of objects that no add-on manages', async () => {
    const { stdout } = await play('migrate export-addon', exportBedOf());
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    const { metadata } = first as { metadata: object };
    assert.deepEqual(metadata, { name: 'orders', namespace: 'shop' });
    assert.equal((second as { spec: { azureIdentity: string } }).spec.azureIdentity, 'orders');
  });

  it('leaves what a binding of the add-on names, if that is not of the add-on', async () => {
    const labels = { 'addonmanager.kubernetes.io/mode': 'Reconcile' };
    const spec = { azureIdentity: 'orders', selector: 'orders' };
    const { stdout } = await play(
      'migrate export-addon',
      exportBedOf({ [kinds.bindings]: [createBinding('orders', spec, { labels })] }),
    );
    const [, copy] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(copy, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentityBinding',
      metadata: { name: 'orders-copy', namespace: 'shop' },
      spec,
    });
  });

  it('does not make an empty file', async () => {
    assert.equal((await play('migrate export-addon -n none', exportBedOf())).code, 1);
  });
});

describe('kubectl nmi migrate to-federation', () => {
  const words = ['migrate', 'to-federation'];
  const withTenant = [...words, '--tenant-id', tenant];
  const assigned = { type: 0, clientID: clientA, resourceID: ordersId };
  const podOf = (serviceAccountName: string, selector = 'orders') =>
    createPod(`web-${serviceAccountName}`, {
      labels: { aadpodidbinding: selector },
      spec: { serviceAccountName },
    });
  function testBedOf(changes: Recorded['objects'] = {}, az = createFakeAz()): Recorded {
    const bed = boundTestBed({
      pods: [podOf('robot')],
      [kinds.identities]: [createIdentity('orders', assigned)],
      ...changes,
    });
    return {
      ...bed,
      other: (program, args) => {
        if (program === 'az') return az.run(args);
        return ok(args[0] === 'patch' ? 'patched\n' : '{"issuer":"https://oidc.example/"}');
      },
    };
  }
  const changesOf = (calls: readonly (readonly string[])[]) =>
    calls.filter(([program, verb]) => program === 'kubectl' && verb === 'patch');
  const patch = (...steps: readonly object[]) => `--patch=${JSON.stringify(steps)}`;

  it('shows the credentials, then the change of the object, and does neither', async () => {
    const { code, stdout, calls } = await play(withTenant, testBedOf());
    assert.equal(code, 0);
    assert.deepEqual(changesOf(calls), []);
    assert.match(stdout, /^# In context dev, namespace shop:\n/);
    assert.match(
      stdout,
      /\n# az identity federated-credential create --name shop-robot-\w+ .*--identity-name orders --issuer https:\/\/oidc\.example\/ --subject system:serviceaccount:shop:robot --audiences api:\/\/AzureADTokenExchange\n# kubectl --context=dev patch azureidentities\.aadpodidentity\.k8s\.io orders --namespace=shop .*"value":3/,
    );
  });

  it('changes the type and adds the tenant with --apply, if nobody changed the type meanwhile', async () => {
    const { code, stdout, calls, inputs } = await play([...withTenant, '--apply'], testBedOf());
    assert.equal(code, 0);
    assert.deepEqual(
      changesOf(calls).map((each) => each.slice(1, 8)),
      [
        [
          ...['patch', kinds.identities, 'orders', '--namespace=shop', '--type=json'],
          '--field-manager=kubectl-nmi',
          patch(
            { op: 'test', path: '/spec/type', value: 0 },
            { op: 'add', path: '/spec/type', value: 3 },
            { op: 'add', path: '/spec/tenantID', value: tenant },
          ),
        ],
      ],
    );
    assert.deepEqual(new Set(inputs), new Set(['']));
    assert.match(stdout, /\npatched\n$/);
  });

  it('leaves a tenant that the object has, and takes no type for type 0', async () => {
    const full = createIdentity('orders', {
      clientID: clientA,
      resourceID: ordersId,
      tenantID: 'contoso.example',
    });
    const { calls } = await play(
      [...withTenant, '--apply'],
      testBedOf({ [kinds.identities]: [full] }),
    );
    assert.deepEqual(
      changesOf(calls).map((each) => each[7]),
      [patch({ op: 'add', path: '/spec/type', value: 3 })],
    );
  });

  it('has a credential for each service account of pods and of bindings', async () => {
    const ended = createPod('job', {
      labels: { aadpodidbinding: 'orders' },
      spec: { serviceAccountName: 'nightly' },
      status: { phase: 'Succeeded' },
    });
    const { stdout } = await play(
      withTenant,
      testBedOf({
        pods: [podOf('robot'), podOf('robot'), ended, podOf('stranger', 'other')],
        [kinds.bindings]: [
          createBinding('orders'),
          createBinding('cron', { azureIdentity: 'orders', selector: 'cron', serviceAccount: 'c' }),
        ],
      }),
    );
    const subjects = [...stdout.matchAll(/^# az .*serviceaccount:shop:(\S+)/gm)].map(
      ([, name]) => name,
    );
    assert.deepEqual(subjects, ['robot', 'nightly', 'c']);
  });

  it('takes the audience from the agents', async () => {
    const agent = createAgentPod('node-1', { args: ['--cloud=usgovernment'] });
    const { stdout } = await play(withTenant, testBedOf({ pods: [podOf('robot'), agent] }));
    assert.match(stdout, /--audiences api:\/\/AzureADTokenExchangeUSGov\n/);
  });

  it('leaves out what it cannot change, says why, and changes the others', async () => {
    const identities = [
      createIdentity('orders', assigned),
      createIdentity('nameless', { type: 0, resourceID: ordersId }),
      createIdentity('unused', assigned),
      createIdentity('odd', { ...assigned, resourceID: '/subscriptions/x' }),
      createIdentity('federated', { type: 3, clientID: clientB, tenantID: tenant }),
    ];
    const bindings = ['orders', 'nameless', 'odd', 'federated'].map((name) =>
      createBinding(name, { azureIdentity: name, selector: 'orders' }),
    );
    const changes = { [kinds.identities]: identities, [kinds.bindings]: bindings };
    const { code, stdout, calls } = await play([...withTenant, '--apply'], testBedOf(changes));
    assert.equal(code, 1);
    assert.deepEqual(
      changesOf(calls).map(([, , , name]) => name),
      ['orders'],
    );
    assert.match(
      stdout,
      /^# Left out: AzureIdentity nameless has no client id\. Find it: az identity show /m,
    );
    assert.match(
      stdout,
      /No pod and no binding of AzureIdentity unused names a service .*--service-account NAME/,
    );
    assert.match(stdout, /Left out: AzureIdentity odd has a spec\.resourceID that is no id/);
    assert.doesNotMatch(stdout, /AzureIdentity federated/);
    assert.equal((await play(withTenant, testBedOf(changes))).code, 0);
  });

  it('needs a tenant', async () => {
    const { code, stdout, calls } = await play([...words, '--apply'], testBedOf());
    assert.deepEqual([code, changesOf(calls)], [1, []]);
    assert.match(stdout, /Left out: AzureIdentity orders has no tenant\. Give --tenant-id\./);
    assert.doesNotMatch(stdout, /^# az/m);
  });

  it('changes one identity by its name, and finds none where there is none of type 0', async () => {
    const other = createIdentity('zebra', { ...assigned, clientID: clientB });
    const changes = {
      [kinds.identities]: [createIdentity('orders', assigned), other],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('zebra', { azureIdentity: 'zebra', selector: 'orders' }),
      ],
    };
    const one = [...words, 'zebra', '--tenant-id', tenant, '--apply'];
    const { calls } = await play(one, testBedOf(changes));
    assert.deepEqual(
      changesOf(calls).map(([, , , name]) => name),
      ['zebra'],
    );
    const none = await play([...words, 'unicorn'], testBedOf(changes));
    assert.equal(none.code, 1);
    assert.match(none.stderr, /namespace shop has no AzureIdentity unicorn of type 0/);
    const empty = await play(words, testBedOf({ [kinds.identities]: [] }));
    assert.match(empty.stderr, /namespace shop has no AzureIdentity of type 0/);
  });
});

describe('to-workload-identity', () => {
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
      const { stdout } = await play('migrate to-workload-identity', testBed);
      assert.match(stdout, /is left out: AzureIdentity orders is a chain, .*AADSTS700231/);
    });

    it('annotates service accounts, federates them, and labels pod templates', async () => {
      const pods = [
        createPod('web-1', { ...bound, owner, ip: '10.1.0.1' }),
        createPod('web-2', { ...bound, owner, ip: '10.1.0.2' }),
      ];
      const { stdout } = await play(
        'migrate to-workload-identity',
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
      const { stdout } = await play('migrate to-workload-identity', testBedOf(changes));
      assert.match(
        stdout,
        /# 21 service accounts, and Azure allows 20 federated credentials for an identity/,
      );
      assert.match(stdout, /Service account a0 is used with zebra too/);
      const own = await play(
        'migrate to-workload-identity',
        testBedOf({
          ...changes,
          [kinds.bindings]: [createBinding('z', { azureIdentity: 'zebra', selector: 'orders' })],
        }),
      );
      assert.match(own.stdout, / azure\.workload\.identity\/tenant-id=contoso\.example$/m);
    });

    it('has nothing to do if no pod is bound', async () => {
      assert.match(
        (await play('migrate to-workload-identity', testBedOf({ pods: [] }))).stderr,
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
        (await play('migrate to-workload-identity -o json', testBedOf())).stdout,
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
      assert.equal((await play('migrate to-workload-identity', testBed)).code, 0);

      const ofTenant = createIdentity('orders', {
        type: 3,
        clientID: clientA,
        tenantID: 'one.example',
      });
      const other = createAccount('default', {
        'azure.workload.identity/tenant-id': 'two.example',
      });
      const differs = await play(
        apply,
        testBedOf({ [kinds.identities]: [ofTenant], serviceaccounts: [other] }),
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
      const explained = await play('explain pod web', testBedOf(changes));
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
      const { stdout } = await play('migrate to-workload-identity', testBedOf(changes));
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
      const shown = await play('migrate to-workload-identity', testBed);
      assert.doesNotMatch(shown.stdout, /client-id=|client-id: |federated-credential create/);
      const wrong = createIdentity('orders', { type: 0, clientID: 'orders', resourceID: '' });
      const other = await play(apply, testBedOf({ [kinds.identities]: [wrong] }));
      assert.equal(other.code, 1);
      assert.match(other.stdout, /has a client id that is no GUID\. Find it: az identity list/);
    });
  });
});
