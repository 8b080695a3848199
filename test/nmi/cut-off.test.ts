/** An agent that hears nothing of its pods, and knows them by their addresses only. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/cache/clock.ts';
import { createPodManifest } from '../../lab/fakes/kube/manifests.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { bindPodToA, openLoopbackAgent, type LoopbackAgent } from '../support/loopback-agent.ts';

async function readReady(agent: LoopbackAgent): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${agent.adminPort}/readyz`)).text();
}

async function openCutOff(flags: Readonly<Record<string, string>>) {
  let aheadMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
  const agent = await openLoopbackAgent(flags, bindPodToA, { clock });
  const pod = agent.client('127.0.0.11');
  assert.equal((await ask(pod, tokenTarget)).identity, 'a');
  agent.kube.faults.hang = true;
  agent.kube.cutConnections();
  return {
    agent,
    pod,
    pass: (ms: number) => {
      aheadMs += ms;
    },
  };
}

describe('an agent that is cut off from the API', () => {
  it('serves the pods it knows for a quarter of an hour, and nobody after that', async () => {
    const { agent, pod, pass } = await openCutOff({});
    await using _ = agent;
    pass(890_000);
    assert.equal((await ask(pod, tokenTarget, { connection: 'kept' })).identity, 'a');
    assert.equal((await ask(pod, tokenTarget, { connection: 'kept' })).identity, 'a');
    pass(15_000);
    const instance = '/metadata/instance?api-version=2021-02-01';
    for (const [target, connection] of [
      [tokenTarget, 'kept'],
      [tokenTarget, 'new'],
      [instance, 'new'],
    ] as const) {
      const reply = await ask(pod, target, { connection });
      assert.equal(reply.status, 503, `${target}: ${reply.text}`);
      assert.equal(reply.headers.get('retry-after'), '1');
      assert.match(
        String(reply.body['error_description']),
        /^The agent has heard nothing of the pods/,
      );
    }
    assert.match(await readReady(agent), /"addresses_believed":"pods are known by address only/);
    // What was missed meanwhile is the first that it is told: the address has gone to another pod.
    agent.kube.delete({ kind: 'Pod', namespace: 'default', name: 'p' });
    agent.kube.apply(
      createPodManifest({ name: 'q', nodeName: 'node-1', ips: ['127.0.0.12'], binding: 'app' }),
    );
    agent.kube.faults.hang = false;
    agent.kube.cutConnections();
    const endMs = performance.now() + 15_000;
    for (;;) {
      const reply = await ask(agent.client('127.0.0.12'), tokenTarget);
      if (reply.identity === 'a') break;
      assert.equal(reply.status, 503, reply.text);
      assert.ok(performance.now() < endMs, 'not served again');
    }
    assert.equal((await ask(pod, tokenTarget)).status, 503, 'the pod that is gone');
    assert.doesNotMatch(await readReady(agent), /addresses_believed/);
  });

  it('goes on serving where that was asked for', async () => {
    const { agent, pod, pass } = await openCutOff({ 'address-staleness-limit': '0' });
    await using _ = agent;
    pass(100_000_000);
    assert.equal((await ask(pod, tokenTarget)).status, 200);
  });
});
