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

  it('serves fifty resources of one pod at the rate of the upstream, and refuses what is beyond 64', async () => {
    await using agent = await openLoopbackAgent(flags, bindPodToA, own);
    await agent.imds.setFaults({ delayMs: 100 });
    const askForMany = async (count: number, name: string): Promise<readonly Reply[]> =>
      Promise.all(
        Array.from({ length: count }, (_, index) => askFor(agent, 'p', `${name}-${index}`)),
      );
    const statuses = (replies: readonly Reply[], status: number): number =>
      replies.filter((reply) => reply.status === status).length;
    const fifty = await askForMany(50, 'fifty');
    assert.equal(statuses(fifty, 200), 50);
    const more = await askForMany(80, 'more');
    assert.equal(statuses(more, 200) + statuses(more, 429), 80);
    // A busy machine may be done with some before it reads the last.
    assert.ok(statuses(more, 200) >= 64 && statuses(more, 429) > 0);
  });
});
