import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createPodManifest } from '../../../lab/fakes/kube/manifests.ts';
import { ask, type Reply } from '../../support/ask.ts';
import { bindPodToA, openLoopbackAgent, type LoopbackAgent } from '../../support/loopback-agent.ts';

const flags = { 'enable-host-token': 'true' };
const own = { tuning: { imdsTimeoutMs: 10_000 } };

function askFor(agent: LoopbackAgent, pod: string, resource: string): Promise<Reply> {
  return ask(agent.client('127.0.0.1'), `/host/token/?resource=https://${resource}.example`, {
    headers: ['podns', 'default', 'podname', pod],
  });
}

describe('/host/token', () => {
  it('counts the fetches of the pods that are named, not those of the process that names them', async () => {
    const names = Array.from({ length: 24 }, (_, index) => `pod-${index}`);
    await using agent = await openLoopbackAgent(
      flags,
      (kube) => {
        bindPodToA(kube);
        for (const [index, name] of names.entries()) {
          const ips = [`127.0.1.${index + 1}`];
          kube.apply(createPodManifest({ name, nodeName: 'node-1', ips, binding: 'app' }));
        }
      },
      own,
    );
    await agent.imds.setFaults({ delayMs: 100 });
    const replies = await Promise.all(names.map((name) => askFor(agent, name, name)));
    assert.deepEqual(
      replies.map(({ status }) => status),
      names.map(() => 200),
    );
  });

  it('tells to slow down for a pod that waits for too many tokens', async () => {
    await using agent = await openLoopbackAgent(flags, bindPodToA, own);
    await agent.imds.setFaults({ delayMs: 500 });
    const resources = Array.from({ length: 24 }, (_, index) => `resource-${index}`);
    const replies = await Promise.all(resources.map((resource) => askFor(agent, 'p', resource)));
    const served = replies.filter(({ status }) => status === 200);
    const throttled = replies.filter(({ status }) => status === 429);
    assert.equal(served.length + throttled.length, 24);
    // A busy machine may be done with some before it reads the last.
    assert.ok(served.length >= 16 && throttled.length > 0, `${throttled.length} throttled`);
  });
});
