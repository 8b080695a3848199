import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openFakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { conditions } from '../../src/cli/conditions.ts';

async function start(flags: Readonly<Record<string, string>>, stop = AbortSignal.abort()) {
  let stdout = '';
  let stderr = '';
  const code = await conditions(
    { 'http-probe-port': '0', 'prometheus-port': '0', ...flags },
    {
      environment: {},
      stdout: (text) => (stdout += text),
      stderr: (text) => (stderr += text),
      stop,
    },
  );
  const lines = stdout.split('\n').filter((line) => line !== '');
  return { code, stderr, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

describe('nmi conditions', () => {
  it('ends with 2 on wrong flags, each on a separate line', async () => {
    const { code, stderr, lines } = await start({
      'max-watch-events-per-sec': '0',
      'agent-daemonset': 'a/b',
      'agent-namespace': '../x',
      'status-conditions': 'true',
    });
    assert.equal(code, 2);
    assert.equal(stderr.trim().split('\n').length, 4);
    assert.match(stderr, /^nmi conditions: unknown flag --status-conditions/m);
    assert.deepEqual(lines, []);
  });

  it('logs why it cannot start, and ends with 78 for a configuration error', async () => {
    const { code, lines, stderr } = await start({ kubeconfig: '/nothing/here' });
    assert.equal(code, 78);
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ['starting nmi conditions process', 'conditions cannot be written'],
    );
    assert.match(stderr, /^nmi: cannot start: no usable Kubernetes configuration.* \(CONFIG\)\n$/);
  });

  it('runs until it is stopped', async () => {
    await using kube = await openFakeKube();
    const folder = await mkdtemp(join(tmpdir(), 'nmi-conditions-'));
    try {
      const kubeconfig = join(folder, 'kubeconfig');
      await writeFile(kubeconfig, kube.kubeconfig());
      const stop = new AbortController();
      let isOver = false;
      const ended = start({ kubeconfig, enableProfile: 'true' }, stop.signal).finally(() => {
        isOver = true;
      });
      await eventually(() => assert.ok(kube.watches() > 0));
      assert.equal(isOver, false);
      stop.abort();
      const { code, lines } = await ended;
      assert.equal(code, 0);
      const messages = lines.map(({ msg }) => msg);
      assert.deepEqual(messages.slice(0, 2), [
        'starting nmi conditions process',
        'setting ignored',
      ]);
      assert.equal(messages.at(-1), 'shutting down');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
