import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/cli/run.ts';
import { openFakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { twoFreePorts } from '../../lab/fabric/free-ports.ts';

async function start(flags: Readonly<Record<string, string>>, stop = AbortSignal.abort()) {
  let stdout = '';
  let stderr = '';
  const code = await run(
    { node: 'n', redirect: 'none', 'http-probe-port': '0', 'prometheus-port': '0', ...flags },
    {
      environment: { NMI_EXPLAIN_SOCKET: 'off' },
      stdout: (text) => (stdout += text),
      stderr: (text) => (stderr += text),
      stop,
    },
  );
  const lines = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { code, lines, stderr };
}

/** An API server, and flags of an agent that uses it. */
async function openCluster() {
  await using opening = new AsyncDisposableStack();
  const kube = opening.use(await openFakeKube());
  const folder = await mkdtemp(join(tmpdir(), 'nmi-run-'));
  opening.defer(() => rm(folder, { recursive: true }));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [port, probePort] = (await twoFreePorts()).map(String) as [string, string];
  const flags = {
    kubeconfig,
    'kubelet-config': join(folder, 'nothing'),
    'nmi-listen-address': '127.0.0.1',
    'nmi-port': port,
    'http-probe-port': probePort,
    'prometheus-port': probePort,
  };
  const opened = opening.move();
  return { flags, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

describe('nmi run', () => {
  it('ends with 2 on wrong flags, each on a separate line', async () => {
    const { code, stderr, lines } = await start({ nope: '1', 'nmi-port': 'x' });
    assert.equal(code, 2);
    assert.equal(stderr.trim().split('\n').length, 2);
    assert.match(stderr, /^nmi: unknown flag --nope/m);
    assert.deepEqual(lines, []);
  });

  it('ends with 78 on a kubenet node, unless that is allowed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-run-'));
    try {
      const path = join(folder, 'kubelet');
      await writeFile(path, '--network-plugin=kubenet');
      const flags = { 'kubelet-config': path, kubeconfig: join(folder, 'nothing') };
      const refused = await start(flags);
      assert.equal(refused.code, 78);
      assert.match(
        refused.stderr,
        /^nmi: AAD Pod Identity is not supported for Kubenet: .*CVE-2021-1677/,
      );
      const allowed = await start({ ...flags, 'allow-network-plugin-kubenet': 'true' });
      assert.match(allowed.stderr, /^nmi: cannot start: no usable Kubernetes/, 'it got further');
      assert.ok(allowed.lines.length > 0);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('runs until it is stopped, and ends with 0', async () => {
    await using cluster = await openCluster();
    const stop = new AbortController();
    const ended = start(cluster.flags, stop.signal);
    const readyz = `http://127.0.0.1:${cluster.flags['http-probe-port']}/readyz`;
    await (await eventually(() => fetch(readyz))).text();
    stop.abort();
    const { code, lines } = await ended;
    assert.equal(code, 0);
    const messages = lines.map(({ msg }) => msg);
    assert.equal(messages.at(-1), 'stopped');
    assert.ok(messages.includes('shutting down, redirect stays installed'));
  });

  it('rejects with an unknown error of the start, which the process reports as a bug', async () => {
    await using cluster = await openCluster();
    const fault = new TypeError('a fault');
    const io = {
      environment: { NMI_EXPLAIN_SOCKET: 'off' },
      stdout: (text: string) => {
        if (text.includes('redirect chosen')) throw fault;
      },
      stderr: () => undefined,
      stop: new AbortController().signal,
    };
    await assert.rejects(run({ node: 'n', redirect: 'none', ...cluster.flags }, io), fault);
  });

  it('logs why it cannot start, and ends with 78 for a configuration error', async () => {
    const { code, lines, stderr } = await start({
      kubeconfig: '/nothing/here',
      'kubelet-config': '/nothing/here',
      enableProfile: 'true',
    });
    assert.equal(code, 78);
    assert.deepEqual(
      lines.map(({ msg }) => msg).filter((msg) => msg !== 'redirect chosen'),
      ['starting nmi process', 'setting ignored', 'agent cannot start'],
    );
    assert.equal(lines.at(-1)?.['code'], 'CONFIG');
    assert.match(stderr, /^nmi: cannot start: no usable Kubernetes configuration.* \(CONFIG\)\n$/);
  });
});
