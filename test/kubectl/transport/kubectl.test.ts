import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Io, ProgramRun } from '../../../src/kubectl/base/io.ts';
import {
  Kubectl,
  ofContext,
  passedOf,
  valueOf,
  type PassedFlags,
} from '../../../src/kubectl/transport/kubectl.ts';

/** @param answer of every call, or of one after the other. */
function openKubectl(
  answer: ProgramRun | readonly ProgramRun[],
  flags: PassedFlags = {},
  environment = {},
  files: Readonly<Record<string, string>> = {},
) {
  const calls: string[][] = [];
  const inputs: (string | undefined)[] = [];
  const io: Io = {
    environment,
    stdout: () => undefined,
    stderr: () => undefined,
    run: (program, args, options) => {
      inputs.push(options?.input);
      const run = 'code' in answer ? answer : answer[calls.length];
      calls.push([program, ...args]);
      assert.ok(run !== undefined);
      return Promise.resolve(run);
    },
    readText: (path) => Promise.resolve(files[path]),
    wallMs: () => 0,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  };
  return { kubectl: new Kubectl(io, flags), calls, inputs };
}

const list = { code: 0, stdout: '{"items":[{"kind":"Pod"}]}', stderr: '' };

describe('the flags of kubectl', () => {
  it('are passed on if they are for kubectl and have a value', () => {
    const flags = { context: 'prod', user: '', namespace: 'shop', as: undefined };
    assert.deepEqual(passedOf(flags), { context: 'prod' });
  });
});

describe('reading by kubectl', () => {
  it('lists a namespace, or all, with the flags of the user’s connection', async () => {
    const { kubectl, calls } = openKubectl(list, { context: 'prod' });
    assert.deepEqual(await kubectl.list('pods', 'shop', { labelSelector: 'a=b' }), {
      ok: true,
      value: [{ kind: 'Pod' }],
    });
    await kubectl.list('pods', undefined, { fieldSelector: 'status.podIP=10.0.0.1' });
    assert.deepEqual(calls, [
      [
        'kubectl',
        'get',
        '--raw=/api/v1/namespaces/shop/pods?labelSelector=a%3Db',
        '--context=prod',
        '--request-timeout=15s',
      ],
      [
        'kubectl',
        'get',
        '--raw=/api/v1/pods?fieldSelector=status.podIP%3D10.0.0.1',
        '--context=prod',
        '--request-timeout=15s',
      ],
    ]);
  });

  it('gives the objects of a list their kind, and no managed fields', async () => {
    const metadata = { name: 'web', managedFields: [{}] };
    const stdout = JSON.stringify({
      kind: 'DeploymentList',
      apiVersion: 'apps/v1',
      items: [{ metadata }],
    });
    const { kubectl, calls } = openKubectl({ code: 0, stdout, stderr: '' });
    assert.deepEqual(await kubectl.list('deployments.apps', '../pods'), {
      ok: true,
      value: [{ kind: 'Deployment', apiVersion: 'apps/v1', metadata: { name: 'web' } }],
    });
    assert.equal(calls[0]?.[2], '--raw=/apis/apps/v1/namespaces/..%2Fpods/deployments');
  });

  it('lists several kinds by one call, each with its own failure', async () => {
    const stdout = JSON.stringify({
      kind: 'List',
      items: [
        { kind: 'NetworkPolicy', apiVersion: 'networking.k8s.io/v1' },
        { kind: 'Pod', apiVersion: 'v1' },
      ],
    });
    const stderr =
      'Error from server (Forbidden): jobs.batch is forbidden: User "dev" cannot list resource "jobs" in API group "batch" in the namespace "shop"\n';
    const resources = [
      'pods',
      'networkpolicies.networking.k8s.io',
      'serviceaccounts',
      'jobs.batch',
    ];
    const { kubectl, calls } = openKubectl({ code: 1, stdout, stderr });
    const lists = await kubectl.listKinds(resources, 'shop');
    assert.deepEqual(
      resources.map((each) => {
        const read = lists.get(each);
        return read?.ok === true ? read.value.length : read?.failure.kind;
      }),
      [1, 1, 0, 'forbidden'],
    );
    assert.deepEqual(calls[0]?.slice(1, 6), [
      ...['get', resources.join(','), '--namespace', 'shop', '--output=json'],
    ]);
    await kubectl.listKinds(['pods'], ofContext);
    await kubectl.listKinds(['pods'], undefined);
    assert.deepEqual(
      calls.slice(1).map((words) => words[3]),
      ['--output=json', '--all-namespaces'],
    );
  });

  it('lists the other kinds if the server lacks one of them', async () => {
    const runs = [
      `error: the server doesn't have a resource type "azureidentitygrants" in group "aadpodidentity.k8s.io"\n`,
      `error: the server doesn't have a resource type "pods"\n`,
    ].map((stderr) => ({ code: 1, stdout: '', stderr }));
    const { kubectl, calls } = openKubectl(runs);
    const lists = await kubectl.listKinds(
      ['pods', 'azureidentitygrants.aadpodidentity.k8s.io'],
      'shop',
    );
    assert.deepEqual(
      [...lists].map(([resource, read]) => [resource, read.ok ? '' : read.failure.kind]),
      [
        ['pods', 'no-kind'],
        ['azureidentitygrants.aadpodidentity.k8s.io', 'no-kind'],
      ],
    );
    assert.equal(calls.length, 2);
  });

  it('has no kind if the server cannot be reached', async () => {
    const stderr = 'Unable to connect to the server: dial tcp: i/o timeout\n';
    const { kubectl } = openKubectl({ code: 1, stdout: '', stderr });
    for (const [, read] of await kubectl.listKinds(['pods', 'jobs.batch'], 'shop')) {
      assert.ok(!read.ok && read.failure.kind === 'unreachable');
    }
  });

  it('never takes a name as a flag', async () => {
    const { kubectl, calls } = openKubectl({ code: 0, stdout: '{"kind":"Pod"}', stderr: '' });
    await kubectl.get('pods', 'shop', '--kubeconfig=x');
    assert.deepEqual(calls, [
      [
        ...['kubectl', 'get', 'pods', '--namespace', 'shop', '--output=json'],
        ...['--request-timeout=15s', '--', '--kubeconfig=x'],
      ],
    ]);
  });

  it('uses another program of that name, and another timeout', async () => {
    const { kubectl, calls } = openKubectl(
      list,
      { 'request-timeout': '1m' },
      { KUBECTL: '/opt/k' },
    );
    await kubectl.run(['version']);
    assert.deepEqual(calls, [['/opt/k', 'version', '--request-timeout=1m']]);
  });

  it('impersonates the user that the call names, not the one already impersonated', async () => {
    const { kubectl, calls } = openKubectl(list, { as: 'admin' });
    await kubectl.run(['auth', 'can-i', 'list', 'pods', '--as=agent']);
    await kubectl.run(['version']);
    assert.deepEqual(
      calls.map((words) => words.filter((word) => word.startsWith('--as'))),
      [['--as=agent'], ['--as=admin']],
    );
  });

  it('passes on the input of a call that has one', async () => {
    const { kubectl, inputs } = openKubectl({ code: 0, stdout: 'done', stderr: '' });
    assert.equal(await kubectl.expect('apply it', ['apply', '-f', '-'], 'kind: Pod'), 'done');
    await kubectl.expect('read it', ['version']);
    assert.deepEqual(inputs, ['kind: Pod', undefined]);
  });

  it('gives no flag where kubectl takes the account of its pod: any would make it take none', async () => {
    const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1', HOME: '/me' };
    const namespaceFile = '/var/run/secrets/kubernetes.io/serviceaccount/namespace';
    for (const [environment, files, given, flags, namespace] of [
      [pod, { [namespaceFile]: 'jobs\n' }, {}, [], 'jobs'],
      [{ ...pod, POD_NAMESPACE: 'own' }, { [namespaceFile]: 'jobs' }, {}, [], 'own'],
      [pod, {}, {}, [], 'default'],
      [
        pod,
        { '/me/.kube/config': 'a: b', [namespaceFile]: 'jobs' },
        {},
        ['--request-timeout=15s'],
        'default',
      ],
      [{ ...pod, KUBECONFIG: '/a:/b' }, { '/b': 'a: b' }, {}, ['--request-timeout=15s'], 'default'],
      [{ ...pod, KUBECONFIG: '/a:/b' }, { '/b': ' ' }, {}, [], 'default'],
      [pod, {}, { kubeconfig: '/c' }, ['--kubeconfig=/c', '--request-timeout=15s'], 'default'],
      [pod, {}, { 'request-timeout': '1s' }, ['--request-timeout=1s'], 'default'],
      [{}, {}, {}, ['--request-timeout=15s'], 'default'],
    ] as const) {
      const failed = { code: 1, stdout: '', stderr: 'error: current-context must exist' };
      const { kubectl, calls } = openKubectl(failed, given, environment, files);
      await kubectl.run(['version']);
      assert.deepEqual(calls[0]?.slice(2), flags);
      assert.equal(await kubectl.currentNamespace(), namespace);
    }
  });

  it('stays at the current context, if there is one, and reports its namespace', async () => {
    const context = { context: { namespace: 'shop' } };
    const stdout = JSON.stringify({ 'current-context': 'prod', contexts: [context] });
    const { kubectl, calls } = openKubectl([{ code: 0, stdout, stderr: '' }, list]);
    const pinned = await kubectl.pin();
    assert.deepEqual([pinned.name, pinned.namespace], ['prod', 'shop']);
    await pinned.kubectl.run(['version']);
    assert.ok(calls[1]?.includes('--context=prod'));
    const none = openKubectl({ code: 1, stdout: '', stderr: 'error: current-context must exist' });
    const unpinned = await none.kubectl.pin();
    assert.deepEqual([unpinned.name, unpinned.namespace], ['', 'default']);
  });

  it('refuses output that is no JSON', async () => {
    const { kubectl } = openKubectl({ code: 0, stdout: 'hello', stderr: '' });
    await assert.rejects(
      kubectl.list('pods', 'shop'),
      /kubectl get --raw=\/api\/v1\/namespaces\/shop\/pods printed no JSON/,
    );
  });

  it('throws the failure of a required read', async () => {
    const { kubectl } = openKubectl({
      code: 1,
      stdout: '',
      stderr: 'Error from server (NotFound): x',
    });
    const read = await kubectl.get('pods', 'shop', 'x');
    assert.throws(() => valueOf(read, 'get pod x'), /cannot get pod x/);
    await assert.rejects(kubectl.expect('get it', ['get', 'x']), /cannot get it/);
  });

  it('takes the namespace of the context, or default', async () => {
    const config = { 'current-context': 'x', contexts: [{ context: { namespace: 'shop' } }] };
    const shop = openKubectl({ code: 0, stdout: JSON.stringify(config), stderr: '' });
    assert.equal(await shop.kubectl.currentNamespace(), 'shop');
    const none = openKubectl({ code: 1, stdout: '', stderr: 'error: current-context must exist' });
    assert.equal(await none.kubectl.currentNamespace(), 'default');
    const missing = openKubectl({ code: undefined, stdout: '', stderr: '' });
    await assert.rejects(missing.kubectl.currentNamespace(), /not on the PATH/);
  });
});
