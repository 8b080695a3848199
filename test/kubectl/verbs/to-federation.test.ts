import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createFakeAz, ordersId, tenant } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

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

describe('kubectl nmi migrate to-federation', () => {
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
