import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { asRecord } from '../../../../src/base/json-value.ts';
import { metadataOf, specOf, type RawObject } from '../../../../src/kubectl/base/object.ts';
import {
  bound,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ordersId,
  play,
  tenant,
  type Recorded,
} from '../recorded-kubectl.ts';

const assigned = { type: 0, clientID: clientA, resourceID: ordersId };
const bedOf = (changes: Recorded['objects'] = {}) =>
  boundTestBed({ [kinds.identities]: [createIdentity('orders', assigned)], ...changes });
/** Bound, each with an address of its own. */
const podsOf = (...accounts: readonly string[]) =>
  accounts.map((serviceAccountName, at) =>
    createPod(`web-${at}`, { ...bound, ip: `10.1.0.${at + 1}`, spec: { serviceAccountName } }),
  );
/** A binding of the same name, for the pods of the first one by default. */
const bind = (name: string, changes: object = {}) =>
  createBinding(name, { azureIdentity: name, selector: 'orders', ...changes });
/** The calls that change the cluster. */
const changesIn = (calls: readonly (readonly string[])[]) =>
  calls.map((words) => words.join(' ')).filter((line) => !line.includes(' --raw='));

describe('kubectl nmi migrate export-addon', () => {
  const labels = { 'addonmanager.kubernetes.io/mode': 'Reconcile', team: 'shop' };
  const exported = async (changes: Recorded['objects']) => {
    const { stdout } = await play('migrate export-addon', bedOf(changes));
    return parseAllDocuments(stdout).map((each) => each.toJS() as RawObject);
  };

  it('has the author’s fields, and none of the server or the add-on', async () => {
    const orders = createIdentity('orders', assigned);
    const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration';
    const annotations = { [lastApplied]: '{}', 'shop.example/contact': 'orders' };
    const ofServer = { uid: 'u', resourceVersion: '7', managedFields: [{}], generation: 3 };
    const metadata = { name: 'orders', namespace: 'shop', ...ofServer, labels, annotations };
    const object = { ...orders, metadata, status: { availableReplicas: 1 } };
    const [identity, binding] = await exported({ [kinds.identities]: [object] });
    assert.deepEqual(identity, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: {
        name: 'orders-copy',
        namespace: 'shop',
        labels: { team: 'shop' },
        annotations: { 'shop.example/contact': 'orders' },
      },
      spec: assigned,
    });
    assert.equal(binding?.['kind'], 'AzureIdentityBinding');
    assert.equal(specOf(binding)['azureIdentity'], 'orders-copy');
  });

  it('leaves the names of objects that no add-on manages', async () => {
    const managed = { [kinds.bindings]: [createBinding('orders', undefined, { labels })] };
    for (const [changes, bindingName] of [
      [{}, 'orders'],
      [managed, 'orders-copy'],
    ] as const) {
      const [identity = {}, binding = {}] = await exported(changes);
      assert.deepEqual(metadataOf(identity), { name: 'orders', namespace: 'shop' });
      assert.equal(metadataOf(binding)['name'], bindingName);
      assert.deepEqual(specOf(binding), { azureIdentity: 'orders', selector: 'orders' });
    }
  });

  it('does not make an empty file', async () => {
    assert.equal((await play('migrate export-addon -n none', bedOf())).code, 1);
  });
});

describe('kubectl nmi migrate to-federation', () => {
  const words = `migrate to-federation --tenant-id ${tenant}`;
  const robot = { pods: podsOf('robot') };
  const patchOf = (...steps: readonly object[]) =>
    `kubectl patch ${kinds.identities} orders --namespace=shop --type=json --field-manager=kubectl-nmi --patch=${JSON.stringify(steps)} --context=dev --request-timeout=15s`;
  const namesIn = (calls: readonly (readonly string[])[]) =>
    changesIn(calls).map((line) => line.split(' ')[3]);

  it('shows the credentials, then the change of the object, and does neither', async () => {
    const { code, stdout, calls } = await play(words, bedOf(robot));
    assert.deepEqual([code, changesIn(calls)], [0, []]);
    assert.match(
      stdout,
      /^# In context dev, namespace shop:\n[^]*\n# az identity federated-credential create --name shop-robot-\w+ .*--identity-name orders --issuer https:\/\/oidc\.example\/ --subject system:serviceaccount:shop:robot --audiences api:\/\/AzureADTokenExchange\n# kubectl --context=dev patch azureidentities\.aadpodidentity\.k8s\.io orders --namespace=shop .*"value":3/,
    );
  });

  it('changes the type and adds the tenant with --apply, if nobody changed the type meanwhile', async () => {
    const typed = { op: 'add', path: '/spec/type', value: 3 };
    const untouched = { op: 'test', path: '/spec/type', value: 0 };
    const ofTenant = { op: 'add', path: '/spec/tenantID', value: tenant };
    const { type: _, ...untyped } = { ...assigned, tenantID: 'contoso.example' };
    for (const [spec, ...steps] of [
      [assigned, untouched, typed, ofTenant],
      // It has a tenant, and no type is type 0.
      [untyped, typed],
    ] as const) {
      const identities = { [kinds.identities]: [createIdentity('orders', spec)] };
      const bed = bedOf({ ...robot, ...identities });
      const { code, stdout, calls, inputs } = await play(`${words} --apply`, bed);
      assert.equal(code, 0);
      assert.deepEqual(changesIn(calls), [patchOf(...steps)]);
      assert.equal(inputs.join(''), '');
      assert.match(stdout, /\npatched\n$/);
    }
  });

  it('has a credential for each service account of pods and of bindings', async () => {
    const status = { phase: 'Succeeded' };
    const ended = createPod('job', { ...bound, spec: { serviceAccountName: 'nightly' }, status });
    const other = {
      labels: { aadpodidbinding: 'other' },
      spec: { serviceAccountName: 'stranger' },
    };
    const args = ['--cloud=usgovernment'];
    const { stdout } = await play(
      words,
      bedOf({
        pods: [
          ...podsOf('robot', 'robot'),
          ended,
          createPod('stranger', other),
          createAgentPod('node-1', { args }),
        ],
        [kinds.bindings]: [
          createBinding('orders'),
          bind('cron', { azureIdentity: 'orders', selector: 'cron', serviceAccount: 'c' }),
        ],
      }),
    );
    const lines = [...stdout.matchAll(/^# az .*serviceaccount:shop:(\S+) .*--audiences (\S+)$/gm)];
    const audience = 'api://AzureADTokenExchangeUSGov';
    assert.deepEqual(
      lines.map(([, name, of]) => [name, of]),
      ['robot', 'nightly', 'c'].map((name) => [name, audience]),
    );
  });

  it('leaves out what it cannot change, says why, and changes the others', async () => {
    const names = ['orders', 'nameless', 'odd', 'federated'];
    const changes = {
      ...robot,
      [kinds.identities]: [
        createIdentity('orders', assigned),
        createIdentity('nameless', { type: 0, resourceID: ordersId }),
        createIdentity('unused', assigned),
        createIdentity('odd', { ...assigned, resourceID: '/subscriptions/x' }),
        createIdentity('federated', { type: 3, clientID: clientB, tenantID: tenant }),
      ],
      [kinds.bindings]: names.map((name) => bind(name)),
    };
    const { code, stdout, calls } = await play(`${words} --apply`, bedOf(changes));
    assert.deepEqual([code, namesIn(calls)], [1, ['orders']]);
    for (const said of [
      /^# Left out: AzureIdentity nameless has no client id\. Find it: az identity show /m,
      /No pod and no binding of AzureIdentity unused names a service .*--service-account NAME/,
      /Left out: AzureIdentity odd has a spec\.resourceID that is no id/,
      /^(?![^]*AzureIdentity federated)/,
    ]) {
      assert.match(stdout, said);
    }
    assert.equal((await play(words, bedOf(changes))).code, 0);
    const untold = await play('migrate to-federation --apply', bedOf(robot));
    assert.deepEqual([untold.code, namesIn(untold.calls)], [1, []]);
    assert.match(
      untold.stdout,
      /Left out: AzureIdentity orders has no tenant\. Give --tenant-id\./,
    );
    assert.doesNotMatch(untold.stdout, /^# az/m);
  });

  it('changes one identity by its name, and finds none where there is none of type 0', async () => {
    const zebra = createIdentity('zebra', { ...assigned, clientID: clientB });
    const changes = {
      ...robot,
      [kinds.identities]: [createIdentity('orders', assigned), zebra],
      [kinds.bindings]: [createBinding('orders'), bind('zebra')],
    };
    const one = words.replace(' --', ' zebra --');
    assert.deepEqual(namesIn((await play(`${one} --apply`, bedOf(changes))).calls), ['zebra']);
    for (const [name, of, said] of [
      [' unicorn', changes, /namespace shop has no AzureIdentity unicorn of type 0/],
      ['', { [kinds.identities]: [] }, /namespace shop has no AzureIdentity of type 0/],
    ] as const) {
      const { code, stderr } = await play(`migrate to-federation${name}`, bedOf(of));
      assert.equal(code, 1);
      assert.match(stderr, said);
    }
  });
});

describe('kubectl nmi migrate to-workload-identity', () => {
  const words = 'migrate to-workload-identity';
  const key = 'azure.workload.identity/client-id';
  const tenantKey = 'azure.workload.identity/tenant-id';
  const annotate = (account: string, entry: string) =>
    `kubectl annotate serviceaccount ${account} --namespace=shop --field-manager=kubectl-nmi ${entry} --context=dev --request-timeout=15s`;
  const accountOf = (name: string, annotations: Readonly<Record<string, string>>) =>
    createObject('ServiceAccount', name, {}, { annotations }, 'v1');
  const identitiesOf = (...specs: readonly object[]) => ({
    [kinds.identities]: specs.map((spec, at) =>
      createIdentity(at === 0 ? 'orders' : 'zebra', spec),
    ),
  });
  const zebra = { type: 3, clientID: clientB, tenantID: 'contoso.example' };

  it('annotates service accounts, federates them, and labels pod templates', async () => {
    const owner = { kind: 'ReplicaSet', name: 'web-1' };
    const labels = { ...bound.labels, app: 'web' };
    const pods = ['1', '2'].map((at) =>
      createPod(`web-${at}`, { labels, owner, ip: `10.1.0.${at}` }),
    );
    const selector = { matchLabels: { app: 'web' } };
    const deployments = [createObject('Deployment', 'web', { selector })];
    const { stdout } = await play(words, bedOf({ pods, [kinds.deployments]: deployments }));
    const line = `# kubectl --context=dev annotate serviceaccount default --namespace=shop --field-manager=kubectl-nmi ${key}=${clientA}\n`;
    assert.ok(stdout.includes(line), stdout);
    assert.equal(stdout.match(/patch deployment web/g)?.length, 1);
    assert.doesNotMatch(stdout, /is used with|is left out/);
    assert.match(stdout, /# az identity federated-credential create --name shop-default/);
  });

  const numbered = Array.from({ length: 21 }, (_, at) => `a${at}`);
  const oldest = (spec: object) => {
    const old = createIdentity('zebra', spec);
    const creationTimestamp = '2024-01-01T00:00:00Z';
    return { ...old, metadata: { ...asRecord(old['metadata']), creationTimestamp } };
  };
  const stripes = createPod('stripes', { labels: { aadpodidbinding: 'zebra' }, ip: '10.1.0.9' });
  for (const [what, changes, ...said] of [
    [
      'leaves out a chain, which federation cannot begin',
      identitiesOf({
        type: 4,
        clientID: clientA,
        application: { tenantID: tenant, clientID: clientB },
      }),
      /is left out: AzureIdentity orders is a chain, .*AADSTS700231/,
    ],
    [
      'counts credentials, and names service accounts with several identities',
      {
        pods: podsOf(...numbered),
        ...identitiesOf(assigned, zebra),
        [kinds.bindings]: [
          createBinding('orders'),
          bind('zebra', { serviceAccount: 'a0' }),
          bind('none'),
        ],
      },
      /# 21 service accounts, and Azure allows 20 federated credentials for an identity/,
      /Service account a0 is used with zebra too/,
    ],
    [
      'names the tenant of the identity',
      { ...identitiesOf(assigned, zebra), [kinds.bindings]: [bind('zebra')] },
      / azure\.workload\.identity\/tenant-id=contoso\.example$/m,
    ],
    [
      'names the identity that pods of a shared account get, if it is another',
      {
        pods: [...podsOf('default'), stripes],
        ...identitiesOf(assigned, { type: 0, clientID: clientB }),
        [kinds.bindings]: [createBinding('orders'), bind('zebra', { selector: 'zebra' })],
      },
      /serviceaccount:shop:default becomes orders\n/,
      /# Pods stripes get zebra today: set AZURE_CLIENT_ID to the client id of zebra in them before you label them\./,
    ],
  ] as const) {
    it(what, async () => {
      const { stdout } = await play(words, bedOf(changes));
      for (const each of said) assert.match(stdout, each);
    });
  }

  it('has nothing to do if no pod is bound', async () => {
    const { stderr } = await play(words, bedOf({ pods: [] }));
    assert.match(stderr, /no pod of namespace shop is bound/);
  });

  it('writes annotations, and nothing else, unless the account has them', async () => {
    const known = accountOf('default', { [key]: ` ${clientA.toUpperCase()}` });
    const team = accountOf('default', { 'example.org/team': 'shop' });
    const full = { ...team, imagePullSecrets: [{ name: 'pull' }] };
    const entry = annotate('default', `${key}=${clientA}`);
    const older = {
      [kinds.identities]: [
        createIdentity('orders', assigned),
        oldest({ ...assigned, clientID: clientB }),
      ],
      [kinds.bindings]: [createBinding('orders'), bind('zebra')],
    };
    for (const [changes, expected, said] of [
      [{ serviceaccounts: [full] }, [entry], /\nannotated\n$/],
      [{ serviceaccounts: [known] }, [], /^/],
      // The pods get the oldest today.
      [
        older,
        [annotate('default', `${key}=${clientB}`)],
        /Service account default is used with orders too[^]*shop:default becomes zebra\n/,
      ],
    ] as const) {
      const { code, stdout, calls, inputs } = await play(`${words} --apply`, bedOf(changes));
      assert.deepEqual([code, inputs.join('')], [0, '']);
      assert.deepEqual(changesIn(calls), expected);
      assert.match(stdout, said);
    }
    const json = await play(`${words} -o json`, bedOf());
    const { objects, kubectl } = JSON.parse(json.stdout) as Record<string, string[][]>;
    assert.deepEqual([objects, kubectl?.[0]?.[0]], [[], 'annotate']);
  });

  it('keeps what another owner wrote, and the others go on', async () => {
    const serviceaccounts = [accountOf('robot', { [key]: clientB }), accountOf('web', {})];
    const bed = bedOf({ pods: podsOf('robot', 'web'), serviceaccounts });
    const { code, stdout, calls } = await play(`${words} --apply`, bed);
    assert.equal(code, 1);
    assert.match(
      stdout,
      new RegExp(
        `# Service account shop/robot is left out: its annotation ${key} is "${clientB}", and AzureIdentity orders has ${clientA}\\. .*kubectl --context=dev -n shop annotate serviceaccount robot ${key}=${clientA} --overwrite`,
      ),
    );
    assert.deepEqual(changesIn(calls), [annotate('web', `${key}=${clientA}`)]);
    const subjects = stdout
      .match(/^# az .*/gm)
      ?.map((line) => /serviceaccount:\S+/.exec(line)?.[0]);
    assert.deepEqual(subjects, ['serviceaccount:shop:web']);
    assert.equal((await play(words, bed)).code, 0);
  });

  it('leaves out what differs in the tenant, or has no client id', async () => {
    const other = { serviceaccounts: [accountOf('default', { [tenantKey]: 'two.example' })] };
    for (const [changes, said] of [
      [
        { ...identitiesOf({ ...zebra, tenantID: 'one.example' }), ...other },
        /tenant-id is "two\.example", and AzureIdentity orders has one\.exam/,
      ],
      [
        identitiesOf({ type: 0, resourceID: ordersId }),
        new RegExp(
          `# Service account shop/default is left out: AzureIdentity orders has no client id\\. Find it: az identity show --ids ${ordersId} --query clientId --output tsv\\. Then set spec\\.clientID: kubectl --context=dev -n shop edit ${kinds.identities} orders\n`,
        ),
      ],
      [
        identitiesOf({ type: 0, clientID: 'orders', resourceID: '' }),
        /has a client id that is no GUID\. Find it: az identity list/,
      ],
    ] as const) {
      const { code, stdout, calls } = await play(`${words} --apply`, bedOf(changes));
      assert.deepEqual([code, changesIn(calls)], [1, []]);
      assert.match(stdout, said);
      assert.doesNotMatch(stdout, /client-id=|client-id: |federated-credential create/);
    }
  });
});
