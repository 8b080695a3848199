import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAgentPod, ok, play, type Recorded } from '../support/recorded-kubectl.ts';

const node = (name: string) => ({ kind: 'Node', metadata: { name } });
const testBedOf = (...pods: readonly ReturnType<typeof createAgentPod>[]): Recorded => ({
  objects: { pods, nodes: [node('node-1'), node('node-2')] },
  other: () => ok('nmi_redirect_up{mode="ebpf"} 1\n'),
});

describe('kubectl nmi status', () => {
  it('has a line for each node, even without an agent', async () => {
    const { stdout, code } = await play(
      ['status', '--exit-code'],
      testBedOf(createAgentPod('node-1')),
    );
    assert.equal(code, 1);
    assert.match(stdout, /^NODE +AGENT +VERSION +REDIRECT +STATE +SINCE/);
    assert.match(stdout, /^node-1 +kube-system\/nmi-node-1 +0\.1\.0 +ebpf +ready +1h0m/m);
    assert.match(stdout, /^node-2 +- +- +- +no agent/m);
    assert.match(stdout, /Node node-2: agent_missing/);
  });

  it('shows the reason of the kubelet and the unmet conditions of an agent', async () => {
    const unready = createAgentPod('node-1', { isReady: false });
    const { stdout } = await play(['status'], {
      ...testBedOf(unready, createAgentPod('node-2')),
      other: (_program, args) =>
        ok(`nmi_ready{condition="synced"} ${args.some((each) => /node-1/.test(each)) ? 0 : 1}\n`),
    });
    assert.match(
      stdout,
      /^node-1 .* not ready .* containers with unready status: \[nmi\], synced$/m,
    );
    assert.match(stdout, /^node-2 .* ready +1h0m +0 +\S+ +-?$/m);
  });

  it('shows no age for an agent that was never ready or not ready', async () => {
    const pending = { ...createAgentPod('node-1'), status: { phase: 'Pending' } };
    const { stdout } = await play(['status'], testBedOf(pending));
    assert.match(stdout, /^node-1 .* not ready +- +0 +- +phase Pending$/m);
  });

  it('waits until every node has a ready agent, and gives up', async () => {
    const ready = testBedOf(createAgentPod('node-1'), createAgentPod('node-2'));
    assert.equal((await play(['status', '--wait'], ready)).code, 0);
    const unready = testBedOf(
      createAgentPod('node-1'),
      createAgentPod('node-2', { isReady: false }),
    );
    const { code, calls } = await play(['status', '--wait', '--timeout', '10'], unready);
    assert.equal(code, 1);
    assert.equal(calls.length, 2 * 5);
    assert.equal((await play(['status'], unready)).code, 0);
  });

  it('reports what is unknown for lack of permission', async () => {
    const testBed = {
      ...testBedOf(createAgentPod('node-1')),
      forbidden: { nodes: 'everywhere' } as const,
    };
    assert.match(
      (await play(['status'], testBed)).stdout,
      /Not checked:\n {2}nodes without an agent/,
    );
    const blind = { ...testBed, forbidden: { pods: 'everywhere' } as const };
    assert.equal((await play(['status'], blind)).code, 77);
  });

  it('has no node to show in an empty cluster', async () => {
    assert.equal((await play(['status', '--exit-code'], { objects: { nodes: [] } })).code, 1);
  });
});
