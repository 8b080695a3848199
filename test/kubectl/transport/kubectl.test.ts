import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Io, ProgramRun } from '../../../src/kubectl/base/io.ts';
import { Kubectl, valueOf, type PassedFlags } from '../../../src/kubectl/transport/kubectl.ts';

function openKubectl(answer: ProgramRun, flags: PassedFlags = {}, environment = {}) {
  const calls: string[][] = [];
  const io: Io = {
    environment,
    stdout: () => undefined,
    stderr: () => undefined,
    run: (program, args) => {
      calls.push([program, ...args]);
      return Promise.resolve(answer);
    },
    post: () => Promise.resolve(undefined),
    readText: () => Promise.resolve(undefined),
    writeNew: () => Promise.resolve(true),
    wallMs: () => 0,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  };
  return { kubectl: new Kubectl(io, flags), calls };
}

const list = { code: 0, stdout: '{"items":[{"kind":"Pod"}]}', stderr: '' };

describe('reading by kubectl', () => {
  it('lists a namespace, or all, with the flags of the user’s connection', async () => {
    const { kubectl, calls } = openKubectl(list, { context: 'prod' });
    assert.deepEqual(await kubectl.list('pods', 'shop', { labels: 'a=b' }), {
      ok: true,
      value: [{ kind: 'Pod' }],
    });
    await kubectl.list('pods', undefined, { fields: 'status.podIP=10.0.0.1' });
    assert.deepEqual(calls, [
      [
        'kubectl',
        'get',
        'pods',
        '--namespace',
        'shop',
        '--output=json',
        '--selector=a=b',
        '--context=prod',
        '--request-timeout=15s',
      ],
      [
        'kubectl',
        'get',
        'pods',
        '--all-namespaces',
        '--output=json',
        '--field-selector=status.podIP=10.0.0.1',
        '--context=prod',
        '--request-timeout=15s',
      ],
    ]);
  });

  it('never takes a name as a flag', async () => {
    const { kubectl, calls } = openKubectl({ code: 0, stdout: '{"kind":"Pod"}', stderr: '' });
    await kubectl.get('pods', 'shop', '--kubeconfig=x');
    assert.deepEqual(calls[0]?.slice(-3), ['--request-timeout=15s', '--', '--kubeconfig=x']);
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

  it('refuses output that is no JSON', async () => {
    const { kubectl } = openKubectl({ code: 0, stdout: 'hello', stderr: '' });
    await assert.rejects(kubectl.list('pods', 'shop'), /kubectl get pods printed no JSON/);
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
    const shop = openKubectl({ code: 0, stdout: 'shop\n', stderr: '' });
    assert.equal(await shop.kubectl.currentNamespace(), 'shop');
    const none = openKubectl({ code: 1, stdout: '', stderr: 'error: current-context must exist' });
    assert.equal(await none.kubectl.currentNamespace(), 'default');
    const missing = openKubectl({ code: undefined, stdout: '', stderr: '' });
    await assert.rejects(missing.kubectl.currentNamespace(), /not on the PATH/);
  });
});
