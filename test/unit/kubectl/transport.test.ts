import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn, setInterval } from 'node:timers/promises';
import type { ProgramRun, RunOptions } from '../../../src/kubectl/base/io.ts';
import { firstAlone } from '../../../src/kubectl/transport/first-alone.ts';
import {
  classifyFailure,
  renderRules,
  toPluginError,
} from '../../../src/kubectl/transport/kubectl-failure.ts';
import { ofContext, passedOf, valueOf } from '../../../src/kubectl/transport/kubectl.ts';
import { runProgram } from '../../../src/kubectl/transport/program.ts';
import { failed, ok, openKubectl } from './recorded-kubectl.ts';

describe('calls of kubectl', () => {
  const open = (mayAsk: boolean) => {
    const started: string[] = [];
    const ends: ((run: ProgramRun) => void)[] = [];
    const run = firstAlone(
      (_program, [name = '']) => {
        started.push(name);
        const { promise, resolve } = Promise.withResolvers<ProgramRun>();
        ends.push(resolve);
        return promise;
      },
      () => Promise.resolve(mayAsk),
    );
    const all = ['a', 'b', 'c'].map((name) => run('kubectl', [name]));
    return { started, ends, all };
  };

  it('wait for the first one where a login plugin may ask, and run at once elsewhere', async () => {
    const { started, ends, all } = open(true);
    await nextTurn();
    assert.deepEqual(started, ['a']);
    ends[0]?.(ok('one'));
    await nextTurn();
    assert.deepEqual(started, ['a', 'b', 'c']);
    for (const end of ends) end(ok('other'));
    assert.equal((await Promise.all(all))[0]?.stdout, 'one');
    const { started: atOnce } = open(false);
    await nextTurn();
    assert.deepEqual(atOnce, ['a', 'b', 'c']);
  });
});

const said: readonly (readonly [stderr: string, kind: string, code: number])[] = [
  [
    'E1127 05:55:01.234567 4242 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group list"\nThe connection to the server localhost:8080 was refused - did you specify the right host or port?',
    'no-config',
    2,
  ],
  ['error: context "prod" does not exist', 'no-config', 2],
  ['error: current-context is not set', 'no-config', 2],
  [
    'The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?',
    'unreachable',
    69,
  ],
  [
    'Unable to connect to the server: dial tcp: lookup api.example: no such host',
    'unreachable',
    69,
  ],
  [
    'Unable to connect to the server: getting credentials: exec: executable kubelogin not found',
    'unreachable',
    69,
  ],
  ['error: You must be logged in to the server (Unauthorized)', 'unauthorized', 77],
  ['error: the server doesn\'t have a resource type "azureidentities"', 'no-kind', 1],
  ['Error from server (NotFound): namespaces "x" not found', 'not-found', 1],
  ['Error from server (Conflict): the object has been modified', 'other', 1],
  ['', 'other', 1],
];

describe('a kubectl that fails', () => {
  for (const [stderr, kind, code] of said) {
    it(`is ${kind}: ${stderr.split('\n').at(-1) ?? ''}`, () => {
      const failure = classifyFailure({ code: 1, stderr });
      assert.equal(failure.kind, kind);
      assert.equal(toPluginError(failure, 'list pods').exitCode, code);
      assert.notEqual(toPluginError(failure, 'list pods').nextStep, '');
      assert.doesNotMatch(toPluginError(failure, 'list pods').message, /E1127|\n/);
    });
  }

  it('is quoted by its last line, without the prefix, also if it only logged its attempts', () => {
    const modified = 'the object has been modified';
    for (const [stderr, quoted] of [
      [`error: ${modified}\n`, modified],
      [`Warning: v1 is deprecated\nerror: ${modified}\n`, modified],
      ['E1127 05:55:01 first\nE1127 05:55:02 second\n\n', 'E1127 05:55:02 second'],
      ['\n', 'kubectl gave no reason'],
    ] as const) {
      const { message } = toPluginError(classifyFailure({ code: 1, stderr }), 'list pods');
      assert.equal(message, `cannot list pods: ${quoted}`);
    }
  });

  it('is missing', () => {
    const error = toPluginError(classifyFailure({ code: undefined, stderr: '' }), 'list pods');
    assert.equal(error.exitCode, 69);
    assert.match(error.message, /cannot list pods: the program kubectl is not on the PATH/);
  });

  it('is forbidden, and the error names the rule that would allow it', () => {
    const stderr =
      'Error from server (Forbidden): deployments.apps is forbidden: User "dev" cannot list resource "deployments" in API group "apps" in the namespace "shop"';
    const failure = classifyFailure({ code: 1, stderr });
    assert.deepEqual(failure.kind === 'forbidden' && failure.rule, {
      verb: 'list',
      resource: 'deployments.apps',
      namespace: 'shop',
    });
    const error = toPluginError(failure, 'list deployments');
    assert.equal(error.exitCode, 77);
    assert.match(
      error.nextStep,
      /apiGroups: \["apps"\], resources: \["deployments"\], verbs: \["list"\] in namespace shop/,
    );
    const jobs = { verb: 'list', resource: 'jobs.batch', namespace: 'shop' };
    const rules = [jobs, { ...jobs, resource: 'cronjobs.batch' }, { ...jobs, namespace: '' }, jobs];
    assert.equal(
      renderRules(rules),
      'apiGroups: ["batch"], resources: ["jobs", "cronjobs"], verbs: ["list"] in namespace shop; ' +
        'apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"] in a ClusterRole',
    );
    assert.match(
      renderRules([{ verb: 'get', resource: 'nodes', namespace: '' }]),
      /^apiGroups: \[""\], resources: \["nodes"\], verbs: \["get"\] in a ClusterRole$/,
    );
  });
});

const list = { code: 0, stdout: '{"items":[{"kind":"Pod"}]}', stderr: '' };

describe('reading by kubectl', () => {
  it('passes on the flags of the user’s connection that have a value', async () => {
    const flags = { context: 'prod', user: '', namespace: 'shop', as: undefined };
    assert.deepEqual(passedOf(flags), { context: 'prod' });
    const timeout = { 'request-timeout': '1m' };
    const machine = { environment: { KUBECTL: '/opt/k' } };
    const { kubectl, calls } = openKubectl(list, timeout, machine);
    await kubectl.run(['version']);
    assert.deepEqual(calls, [['/opt/k', 'version', '--request-timeout=1m']]);
  });

  it('lists a namespace, or all, and never takes a name as a flag', async () => {
    const { kubectl, calls } = openKubectl(list, { context: 'prod' });
    const pods = await kubectl.list('pods', 'shop', { labelSelector: 'a=b' });
    assert.deepEqual(pods, { ok: true, value: [{ kind: 'Pod' }] });
    await kubectl.list('pods', undefined, { fieldSelector: 'status.podIP=10.0.0.1' });
    await kubectl.list('deployments.apps', '../pods');
    await kubectl.get('pods', 'shop', '--kubeconfig=x');
    const flags = '--context=prod --request-timeout=15s';
    assert.deepEqual(
      calls.map((words) => words.join(' ')),
      [
        `kubectl get --raw=/api/v1/namespaces/shop/pods?labelSelector=a%3Db ${flags}`,
        `kubectl get --raw=/api/v1/pods?fieldSelector=status.podIP%3D10.0.0.1 ${flags}`,
        `kubectl get --raw=/apis/apps/v1/namespaces/..%2Fpods/deployments ${flags}`,
        `kubectl get pods --namespace shop --output=json ${flags} -- --kubeconfig=x`,
      ],
    );
  });

  it('gives the objects of a list their kind, and no managed fields', async () => {
    const items = [{ metadata: { name: 'web', managedFields: [{}] } }];
    const stdout = JSON.stringify({ kind: 'DeploymentList', apiVersion: 'apps/v1', items });
    assert.deepEqual(await openKubectl(ok(stdout)).kubectl.list('deployments.apps', 'shop'), {
      ok: true,
      value: [{ kind: 'Deployment', apiVersion: 'apps/v1', metadata: { name: 'web' } }],
    });
  });

  it('lists several kinds by one call, each with its own failure', async () => {
    const items = [
      { kind: 'NetworkPolicy', apiVersion: 'networking.k8s.io/v1' },
      { kind: 'Pod', apiVersion: 'v1' },
    ];
    const stdout = JSON.stringify({ kind: 'List', items });
    const stderr =
      'Error from server (Forbidden): jobs.batch is forbidden: User "dev" cannot list resource "jobs" in API group "batch" in the namespace "shop"\n';
    const policies = 'networkpolicies.networking.k8s.io';
    const resources = ['pods', policies, 'serviceaccounts', 'jobs.batch'];
    const { kubectl, calls } = openKubectl({ code: 1, stdout, stderr });
    const lists = await kubectl.listKinds(resources, 'shop');
    assert.deepEqual(
      resources.map((each) => {
        const read = lists.get(each);
        return read?.ok === true ? read.value.length : read?.failure.kind;
      }),
      [1, 1, 0, 'forbidden'],
    );
    await kubectl.listKinds(['pods'], ofContext);
    await kubectl.listKinds(['pods'], undefined);
    assert.deepEqual(
      calls.map((words) => words.slice(3, -1).join(' ')),
      ['--namespace shop --output=json', '--output=json', '--all-namespaces --output=json'],
    );
    assert.equal(calls[0]?.[2], resources.join(','));
  });

  it('lists the other kinds if the server lacks one of them, and none if it cannot be reached', async () => {
    const grants = 'azureidentitygrants.aadpodidentity.k8s.io';
    const { kubectl, calls } = openKubectl([
      failed(
        `error: the server doesn't have a resource type "azureidentitygrants" in group "aadpodidentity.k8s.io"\n`,
      ),
      failed(`error: the server doesn't have a resource type "pods"\n`),
    ]);
    const kindsOf = async (of: typeof kubectl, ...resources: readonly string[]) =>
      [...(await of.listKinds(resources, 'shop'))].map(
        ([resource, read]) => `${resource} ${read.ok ? '' : read.failure.kind}`,
      );
    assert.deepEqual(await kindsOf(kubectl, 'pods', grants), ['pods no-kind', `${grants} no-kind`]);
    assert.equal(calls.length, 2);
    const away = openKubectl(failed('Unable to connect to the server: dial tcp: i/o timeout\n'));
    const unread = ['pods unreachable', 'jobs.batch unreachable'];
    assert.deepEqual(await kindsOf(away.kubectl, 'pods', 'jobs.batch'), unread);
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
    const { kubectl, inputs } = openKubectl(ok('done'));
    assert.equal(await kubectl.expect('apply it', ['apply', '-f', '-'], 'kind: Pod'), 'done');
    await kubectl.expect('read it', ['version']);
    assert.deepEqual(inputs, ['kind: Pod', '']);
  });

  it('gives no flag where kubectl takes the account of its pod: any would make it take none', async () => {
    const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1', HOME: '/me' };
    const mounted = { '/var/run/secrets/kubernetes.io/serviceaccount/namespace': 'jobs\n' };
    const two = { ...pod, KUBECONFIG: '/a:/b' };
    const usual = '--request-timeout=15s';
    for (const [environment, files, given, flags, namespace] of [
      [pod, mounted, {}, '', 'jobs'],
      [{ ...pod, POD_NAMESPACE: 'own' }, mounted, {}, '', 'own'],
      [pod, {}, {}, '', 'default'],
      [pod, { ...mounted, '/me/.kube/config': 'a: b' }, {}, usual, 'default'],
      [two, { '/b': 'a: b' }, {}, usual, 'default'],
      [two, { '/b': ' ' }, {}, '', 'default'],
      [pod, {}, { kubeconfig: '/c' }, `--kubeconfig=/c ${usual}`, 'default'],
      [pod, {}, { 'request-timeout': '1s' }, '--request-timeout=1s', 'default'],
      [{}, {}, {}, usual, 'default'],
    ] as const) {
      const none = failed('error: current-context must exist');
      const { kubectl, calls } = openKubectl(none, given, { environment, files });
      await kubectl.run(['version']);
      assert.equal(calls[0]?.slice(2).join(' '), flags);
      assert.equal(await kubectl.currentNamespace(), namespace);
    }
  });

  it('stays at the current context, if there is one, and reports its namespace', async () => {
    const contexts = [{ context: { namespace: 'shop' } }];
    const config = ok(JSON.stringify({ 'current-context': 'prod', contexts }));
    const { kubectl, calls } = openKubectl([config, list]);
    const pinned = await kubectl.pin();
    assert.deepEqual([pinned.name, pinned.namespace], ['prod', 'shop']);
    await pinned.kubectl.run(['version']);
    assert.ok(calls[1]?.includes('--context=prod'));
    assert.equal(await openKubectl(config).kubectl.currentNamespace(), 'shop');
    const none = openKubectl(failed('error: current-context must exist')).kubectl;
    const { name, namespace } = await none.pin();
    assert.deepEqual([name, namespace], ['', 'default']);
    const missing = openKubectl({ code: undefined, stdout: '', stderr: '' }).kubectl;
    await assert.rejects(missing.currentNamespace(), /not on the PATH/);
  });

  it('refuses output that is no JSON, and throws the failure of a required read', async () => {
    await assert.rejects(
      openKubectl(ok('hello')).kubectl.list('pods', 'shop'),
      /kubectl get --raw=\/api\/v1\/namespaces\/shop\/pods printed no JSON/,
    );
    const { kubectl } = openKubectl(failed('Error from server (NotFound): x'));
    const read = await kubectl.get('pods', 'shop', 'x');
    assert.throws(() => valueOf(read, 'get pod x'), /cannot get pod x/);
    await assert.rejects(kubectl.expect('get it', ['get', 'x']), /cannot get it/);
  });
});

const never = new AbortController().signal;

const noTerminal = { isInteractive: false, prompt: () => undefined };

describe('a program of the user', () => {
  it('gets its arguments and its input unchanged, without a shell', async () => {
    const args = [
      '-e',
      'process.stdin.pipe(process.stdout); console.error(process.argv[1])',
      '$(id) *',
    ];
    assert.deepEqual(await runProgram(process.execPath, args, { input: 'in' }, never, noTerminal), {
      code: 0,
      stdout: 'in',
      stderr: '$(id) *\n',
    });
  });

  it('reads nothing of the terminal unless a person is there', async () => {
    const script =
      "const it = require('fs').fstatSync(0); console.log(it.isSocket() || it.isFIFO())";
    const run = await runProgram(process.execPath, ['-e', script], {}, never, noTerminal);
    assert.equal(run.stdout, 'true\n');
  });

  it('fails with its exit code, and without one when there is no such program', async () => {
    const run = await runProgram(
      process.execPath,
      ['-e', 'process.exit(3)'],
      { input: 'x'.repeat(1e6) },
      never,
      noTerminal,
    );
    assert.equal(run.code, 3);
    const missing = await runProgram('no-such-program', [], {}, never, noTerminal);
    assert.equal(missing.code, undefined);
    assert.match(missing.stderr, /no-such-program ENOENT/);
  });

  it('is started again where Ctrl-C ended it, if it may be and is to outlive that', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-program-'));
    t.after(() => rmSync(folder, { recursive: true }));
    // A group of its own is made by the child, a moment after it has begun to exist.
    const script = `mkdir "$0/$1" && kill -INT $$; echo done`;
    const runOnce = (name: string, options: RunOptions) =>
      runProgram('sh', ['-c', script, folder, name], options, never, noTerminal);
    const { code, stdout } = await runOnce('delete', { outlivesStop: true, mayRepeat: true });
    assert.deepEqual([code, stdout], [0, 'done\n']);
    assert.equal((await runOnce('get', {})).code, 1);
    // It may have had its effect.
    assert.equal((await runOnce('create', { outlivesStop: true })).code, 1);
  });

  it('passes on what it asks while it waits, and not its last words', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const folder = mkdtempSync(join(tmpdir(), 'nmi-program-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const entered = join(folder, 'code');
    const asked: string[] = [];
    const terminal = { isInteractive: false, prompt: (text: string) => asked.push(text) };
    const script = `
      console.error('E1129 attempt'); console.error('Enter the code');
      setInterval(() => {
        if (!require('fs').existsSync(process.argv[1])) return;
        console.error('Error: no'); process.exit(1);
      }, 10);`;
    const args = ['-e', script, entered];
    const running = runProgram(process.execPath, args, {}, never, terminal);
    for await (const _ of setInterval(10)) {
      t.mock.timers.tick(500);
      if (asked.length > 0) break;
    }
    writeFileSync(entered, '');
    const run = await running;
    t.mock.timers.tick(10_000);
    assert.deepEqual(asked, ['Enter the code\n']);
    assert.equal(run.stderr, 'E1129 attempt\nEnter the code\nError: no\n');
  });

  it('asks nothing while it goes on to write, and nothing once it has ended', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const asked: string[] = [];
    const terminal = { isInteractive: false, prompt: (text: string) => asked.push(text) };
    const script = `console.error('one'); setTimeout(() => console.error('two'), 100);`;
    const run = await runProgram(process.execPath, ['-e', script], {}, never, terminal);
    assert.equal(run.stderr, 'one\ntwo\n');
    t.mock.timers.tick(10_000);
    assert.deepEqual(asked, []);
  });

  it('ends when the user interrupts', async () => {
    const stop = new AbortController();
    const endless = ['-e', 'setInterval(() => {}, 1e6)'];
    const run = runProgram(process.execPath, endless, {}, stop.signal, noTerminal);
    stop.abort();
    assert.equal((await run).code, 1);
  });
});
