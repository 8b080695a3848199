import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createPodManifest } from '../../lab/fakes/kube/manifests.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { bindPodToA, openLoopbackAgent } from '../support/loopback-agent.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';

describe('an agent whose watches went silent without an error', () => {
  it('serves a new pod within a second of its first request', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA, {
      tuning: { lateObjectWaitMs: 10_000 },
    });
    agent.kube.goSilent();
    const pod = { name: 'new', nodeName: 'node-1', ips: ['127.0.0.12'], binding: 'app' };
    agent.kube.apply(createPodManifest(pod));
    using time = new OwnTime();
    const reply = await ask(agent.client('127.0.0.12'), tokenTarget);
    const tookMs = time.nowMs();
    assert.equal(reply.identity, 'a');
    assert.ok(tookMs < 1000, `${tookMs} ms`);
    // Known pods are still served.
    assert.equal((await ask(agent.client('127.0.0.11'), tokenTarget)).identity, 'a');
  });
});
