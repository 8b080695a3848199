import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAgentPod, failed, ok, play } from '../support/recorded-kubectl.ts';

const nodes = ['node-1', 'node-2'].map((name) => ({ kind: 'Node', metadata: { name } }));
const testBed = {
  objects: {
    pods: [createAgentPod('node-1'), createAgentPod('node-2', { args: ['--prometheus-port=0'] })],
    nodes,
  },
};

async function statusWith(answer: ReturnType<typeof ok>) {
  const { stdout, calls } = await play(['status', '-o', 'json'], {
    ...testBed,
    other: () => answer,
  });
  return {
    calls,
    value: JSON.parse(stdout) as { nodes: Record<string, unknown>[]; unread: { why: string }[] },
  };
}

describe('the state of agents', () => {
  it('is read from their metrics pages', async () => {
    const page =
      '# HELP nmi_token_cache_entries Tokens.\nno sample\n\nnmi_build_info{version="0.2.0",commit="abc"} 1\nnmi_redirect_up{mode="ebpf"} 1\nnmi_ready{condition="listener"} 1\nnmi_ready{condition="watches_synced"} 0\nnmi_token_cache_entries 7\n';
    const { value, calls } = await statusWith(ok(page));
    const { version, redirect, tokens, problem } = value.nodes[0] ?? {};
    assert.deepEqual(
      { version, redirect, tokens, problem },
      { version: '0.2.0', redirect: 'ebpf', tokens: 7, problem: 'watches_synced' },
    );
    // The second one has no metrics page.
    assert.deepEqual(calls, [
      [
        'kubectl',
        'get',
        '--raw=/api/v1/namespaces/kube-system/pods/nmi-node-1:9090/proxy/metrics',
        '--request-timeout=15s',
      ],
    ]);
    const down = await statusWith(ok('nmi_redirect_up{mode="iptables"} 0\n'));
    assert.equal(down.value.nodes[0]?.['redirect'], 'iptables (not in place)');
  });

  it('reports redirect none if the pod’s arguments disable it', async () => {
    const pods = [createAgentPod('node-1', { args: ['--redirect=none'] })];
    const other = () => ok('nmi_build_info{version="0.2.0",commit="abc"} 1\n');
    const { stdout } = await play(['status', '-o', 'json'], { objects: { pods, nodes }, other });
    const value = JSON.parse(stdout) as { nodes: Record<string, unknown>[] };
    assert.equal(value.nodes[0]?.['redirect'], 'none');
  });

  it('is read only from their pods if the user may not read more', async () => {
    const stderr =
      'Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    const { value } = await statusWith(failed(stderr));
    assert.equal(value.nodes[0]?.['version'], '0.1.0');
    assert.equal(value.unread.length, 1);
    assert.match(value.unread[0]?.why ?? '', /resources: \["pods\/proxy"\], verbs: \["get"\]/);
  });

  it('is requested of no further agents once it is forbidden, and of all after other failures', async () => {
    const pods = Array.from({ length: 9 }, (_, at) => createAgentPod(`node-${at}`));
    const readAllWith = async (stderr: string) => {
      const other = () => failed(stderr);
      const { calls, stdout } = await play(['status', '-o', 'json'], { objects: { pods }, other });
      const { unread } = JSON.parse(stdout) as { unread: unknown[] };
      return [calls.length, unread.length];
    };
    const forbidden =
      'Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    // Eight are read at once.
    assert.deepEqual(await readAllWith(forbidden), [8, 1]);
    assert.deepEqual(await readAllWith('Error from server (NotFound): pods "x" not found'), [9, 9]);
  });
});
