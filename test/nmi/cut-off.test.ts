/** An agent that gets no events of its pods, and identifies them only by their addresses. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/base/time/clock.ts';
import { createEntraApplication } from '../../lab/fakes/entra/applications.ts';
import { createPodManifest, createServiceAccount } from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import {
  federatedTo,
  openEntraAgent,
  podAccount,
  type EntraAgent,
} from '../support/entra-agent.ts';
import {
  bindPodToA,
  openLoopbackAgent,
  type AgentOwn,
  type LoopbackAgent,
} from '../support/loopback-agent.ts';

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

/** Beside one pod with Workload Identity and the application `w`. */
function openWorkloadAgent(own: AgentOwn = {}): Promise<EntraAgent> {
  return openEntraAgent(
    { 'workload-identity': 'true' },
    ({ kube, entra }) => {
      const application = createEntraApplication('w', federatedTo(podAccount));
      entra.register(application);
      const annotations = {
        'azure.workload.identity/client-id': application.clientId,
        'azure.workload.identity/tenant-id': application.tenantId,
      };
      kube.apply(createServiceAccount({ ...podAccount, annotations }));
      const labels = { 'azure.workload.identity/use': 'true' };
      const serviceAccount = podAccount.name;
      const pod = { name: 'p', nodeName: 'node-1', ips: ['127.0.0.11'], labels, serviceAccount };
      kube.apply(createPodManifest(pod));
    },
    { ...own, tuning: { lateObjectWaitMs: 3_000 } },
  );
}

describe('an agent that is cut off from the API', () => {
  it('serves the known pods for a quarter of an hour, and no caller after that', async () => {
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
        /^Pod information for this node is stale/,
      );
    }
    assert.match(await readReady(agent), /"pod_ips_current":"pods are known by address only/);
    // The first event is the missed one: the address belongs to another pod.
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
    assert.equal((await ask(pod, tokenTarget)).status, 503, 'the deleted pod');
    assert.doesNotMatch(await readReady(agent), /pod_ips_current/);
  });

  it('continues to serve when configured so', async () => {
    const flags = { 'address-staleness-limit': '0', 'rights-staleness-limit': '0' };
    const { agent, pod, pass } = await openCutOff(flags);
    await using _ = agent;
    pass(100_000_000);
    assert.equal((await ask(pod, tokenTarget)).status, 200);
  });

  it('serves no pod with rights that are older than a day', async () => {
    const { agent, pod, pass } = await openCutOff({ 'address-staleness-limit': '0' });
    await using _ = agent;
    pass(86_000_000);
    assert.equal((await ask(pod, tokenTarget)).status, 200);
    pass(1_000_000);
    const reply = await ask(pod, tokenTarget);
    assert.equal(reply.status, 503, reply.text);
    assert.equal(reply.headers.get('retry-after'), '1');
    assert.match(
      reply.text,
      /not proven current: pods for 1 d 0 h, .*bindings for 1 d 0 h.*agent_not_synced/,
    );
    assert.match(
      await readReady(agent),
      /"rights_current":"no pod gets a token: .*pods for 1 d 0 h/,
    );
    const instance = await ask(pod, '/metadata/instance?api-version=2021-02-01');
    assert.equal(instance.status, 200, instance.text);
  });

  it('uses the last annotations of a service account for five minutes, also after a pause', async () => {
    let aheadMs = 0;
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
    await using agent = await openWorkloadAgent({ clock });
    const pod = agent.client('127.0.0.11');
    assert.equal((await ask(pod, tokenTarget)).identity, 'w');
    agent.kube.faults.hang = true;
    agent.kube.cutConnections();
    for (const restMs of [130_000, 0, 160_000]) {
      aheadMs += restMs;
      const reply = await ask(pod, tokenTarget);
      assert.equal(reply.identity, 'w', reply.text);
      assert.ok(reply.ownMs < 2_500, `${reply.ownMs} ms`);
    }
    aheadMs += 10_000;
    const reply = await ask(pod, tokenTarget);
    assert.equal(reply.status, 503, reply.text);
    assert.equal(reply.headers.get('retry-after'), '1');
    assert.match(String(reply.body['error_description']), /^The service account of this pod/);
  });
});

describe('a pod with an unreadable service account', () => {
  for (const [failure, status, reason] of [
    [
      500,
      503,
      /^The service account of this pod, default\/robot, cannot be read: .* Retry\. \(agent_not_synced\)$/,
    ],
    [403, 400, /^Identity not found: the agent may not read service account default\/robot /],
  ] as const) {
    it(`is answered ${status} as soon as the API server has answered ${failure}`, async () => {
      await using agent = await openWorkloadAgent();
      agent.kube.faults.failNext(1, failure, { containing: '/serviceaccounts/robot' });
      const pod = agent.client('127.0.0.11');
      const reply = await ask(pod, tokenTarget);
      assert.equal(reply.status, status, reply.text);
      assert.match(String(reply.body['error_description']), reason);
      assert.ok(reply.ownMs < 2_000, `${reply.ownMs} ms`);
      assert.ok(agent.log.some((line) => line.includes('failed to read service account')));
      await eventually(async () => {
        assert.equal((await ask(pod, tokenTarget)).identity, 'w');
      }, 20_000);
    });
  }
});
