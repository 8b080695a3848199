/** The agent's endpoints for the node: `/host/token`, probes, metrics. */
import assert from 'node:assert/strict';
import { parseRecord } from '../../../src/base/json-value.ts';
import { metricsLimitMs } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import type { LabPod } from '../../pods/pod.ts';
import { findTokenIdentity } from '../../fakes/token.ts';
import { feed, succeed } from '../../test-bed/node-view.ts';
import type { PodClient } from '../../pods/pod-client.ts';
import type { PodAnswer, PodRequest } from '../../pods/pod-protocol.ts';
import { assertToken, assertUpstream } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const listenIp = '169.254.25.79';
const listenPort = 2579;
const hostTokenTarget = '/host/token/?resource=https://vault.azure.net';

const hostToken: Scenario = {
  name: 'host-token',
  title: '/host/token serves a process of the node for a named pod, and never a pod.',
  needs: 'namespaces',
  inTour: false,
  agentFlags: ['--enable-host-token'],
  run: async (testBed) => {
    const identity = testBed.bind('app-a', 'app-a');
    const pod = await testBed.addPod({ name: 'app', binding: 'app-a' });
    await using host = await testBed.environment.openHostClient();
    const served = await askHostToken(host, pod, { host: '127.0.0.1', port: listenPort });
    assert.equal(served.outcome, 'answered');
    assert.equal(served.status, 200, served.body);
    const body = parseRecord(served.body);
    assert.deepEqual(Object.keys(body ?? {}), ['token', 'clientid']);
    assert.equal(body?.['clientid'], identity.clientId);
    assert.equal(findTokenIdentity(JSON.stringify(body?.['token'])), 'app-a');

    const unknown = await askHostToken(
      host,
      { namespace: 'default', name: 'nobody' },
      { host: '127.0.0.1', port: listenPort },
    );
    assert.equal(unknown.outcome === 'answered' && unknown.status, 503);

    const places = [
      {},
      { host: listenIp, port: listenPort },
      { host: testBed.environment.nodeIp, port: listenPort },
      { host: '127.0.0.1', port: listenPort },
    ];
    const seen: string[] = [];
    for (const place of places) {
      const answer = await askHostToken(pod.client, pod, place);
      seen.push(answer.outcome === 'answered' ? String(answer.status) : answer.error);
      if (answer.outcome === 'failed') continue;
      assert.equal(findTokenIdentity(answer.body), undefined);
      assert.doesNotMatch(answer.body, /access_token/, 'a pod got a token by /host/token');
    }
    assert.deepEqual(seen, ['403', '403', 'ECONNREFUSED', 'ECONNREFUSED']);
    assertUpstream(testBed, ['app-a']);
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `a host process got the pod's token; the pod itself got ${seen.join(', ')}`;
  },
};

const hostTokenOff: Scenario = {
  name: 'host-token-off',
  title: 'Without --enable-host-token, /host/token is closed.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('app-a', 'app-a');
    const pod = await testBed.addPod({ name: 'app', binding: 'app-a' });
    await using host = await testBed.environment.openHostClient();
    const onLoopback = await askHostToken(host, pod, { host: '127.0.0.1', port: listenPort });
    assert.equal(onLoopback.outcome === 'failed' && onLoopback.error, 'ECONNREFUSED');
    for (const [client, place] of [
      [host, { host: listenIp, port: listenPort }],
      [pod.client, {}],
    ] as const) {
      const answer = await askHostToken(client, pod, place);
      assert.equal(answer.outcome === 'answered' && answer.status, 404);
    }
    assert.deepEqual(testBed.imds.requests(), []);
    return 'closed on loopback, 404 elsewhere, no request upstream';
  },
};

const probes: Scenario = {
  name: 'probes',
  title:
    'Probes and metrics report the state; a redirect that cannot be repaired makes the agent not ready.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('probe-a', 'probe-a');
    const pod = await testBed.addPod({ name: 'app', binding: 'probe-a' });
    assertToken(await pod.ask(), 'probe-a');
    const { agent } = testBed;
    assert.deepEqual(await agent.page('healthz'), { status: 200, text: 'Active' });
    assert.equal((await agent.page('livez'))?.status, 200);
    assert.equal((await agent.page('readyz'))?.status, 200);
    const metrics = (await agent.page('metrics'))?.text ?? '';
    for (const [family, type] of oldFamilies) {
      assert.ok(metrics.includes(`# TYPE aadpodidentity_${family} ${type}\n`), `no ${family}`);
    }
    const untilUp = (wanted: number) =>
      eventually(async () => {
        assert.equal(await agent.metric(`nmi_redirect_up{mode="${testBed.mode}"}`), wanted);
      }, metricsLimitMs);
    await untilUp(1);

    // A foreign link with our name: the agent leaves it alone and reports it.
    testBed.log('attacker: takes the name nmi0 for a link of another type');
    const steps = 'link del nmi0\nlink add nmi0 type veth peer name nmi1\n';
    // The agent may come in between and make its own.
    await eventually(() => feed(testBed, steps, 'ip', '-batch', '-'));
    try {
      const missing = await eventually(async () => {
        const page = await agent.page('readyz');
        assert.equal(page?.status, 503, 'still ready without the redirect');
        return page?.text ?? '';
      });
      assert.match(missing, /"redirect":"[^"]*nmi0 is not the agent's/);
      await untilUp(0);
      assert.equal((await agent.page('livez'))?.status, 200);
      const reply = await pod.ask({ timeoutMs: 500 });
      assert.equal(reply.status, 0, 'a pod got an answer without the redirect');
    } finally {
      await succeed(testBed, 'ip', 'link', 'del', 'nmi0');
    }
    await agent.untilReady();
    await untilUp(1);
    assertToken(await pod.ask(), 'probe-a');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    assertUpstream(testBed, ['probe-a']);
    return '/readyz named the redirect while it was broken; pods got no answer; then ready again';
  },
};

export const nodeSurfaceScenarios: readonly Scenario[] = [hostTokenOff, probes, hostToken];

const oldFamilies = [
  ['nmi_operations_duration_seconds', 'histogram'],
  ['imds_operations_duration_seconds', 'histogram'],
  ['imds_operations_errors_count', 'counter'],
  ['kubernetes_api_operations_errors_count', 'counter'],
] as const;

function askHostToken(
  client: PodClient,
  pod: Pick<LabPod, 'namespace' | 'name'>,
  place: Pick<PodRequest, 'host' | 'port'>,
): Promise<PodAnswer> {
  return client.request({
    method: 'GET',
    target: hostTokenTarget,
    headers: ['podname', pod.name, 'podns', pod.namespace],
    connection: 'new',
    timeoutMs: 3_000,
    ...place,
  });
}
