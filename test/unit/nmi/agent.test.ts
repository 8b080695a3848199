/** The whole agent on loopback: what no part of it decides alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createEntraApplication } from '../../../lab/fakes/entra/applications.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createIdentityUse,
  createPodManifest,
  createServiceAccount,
} from '../../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { asRecord, stringAt } from '../../../src/base/json-value.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import {
  bindApplication,
  bindPod,
  credentialKinds,
  openEntraAgent,
  podAccount,
  type EntraAgent,
  type EntraTestBed,
} from '../../support/entra-agent.ts';
import { bindPodToA, identityA, idsOf, openLoopbackAgent } from '../../support/loopback-agent.ts';
import { untilMetric } from '../../support/until-metric.ts';

const ip = '127.0.0.11';
const instance = '/metadata/instance?api-version=2021-02-01';
const hourMs = 3_600_000;

it('serves a pod and a binding that arrive while the request waits', async () => {
  const tuning = { lateObjectWaitMs: 20_000 };
  const identity = createAzureIdentity({ name: 'a', ...idsOf(identityA) });
  await using agent = await openLoopbackAgent({}, (kube) => void kube.apply(identity), { tuning });
  const early = ask(agent.client(ip), tokenTarget);
  await untilMetric(agent, 'nmi_waiting_requests', 1);
  const pod = { name: 'p', nodeName: 'node-1', ips: [ip], binding: 'app' };
  agent.kube.apply(createPodManifest(pod));
  await untilMetric(agent, 'nmi_index_pods{kind="all"}', 1);
  await untilMetric(agent, 'nmi_waiting_requests', 1);
  const binding = { name: 'a', azureIdentity: 'a', selector: 'app' };
  agent.kube.apply(createAzureIdentityBinding(binding));
  const reply = await early;
  assert.equal(reply.identity, 'a');
  assert.ok(reply.durationMs < 15_000, String(reply.durationMs));
});

describe('an agent that is cut off from the API', () => {
  async function openCutOff(flags: Readonly<Record<string, string>>) {
    let aheadMs = 0;
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
    const agent = await openLoopbackAgent(flags, bindPodToA, { clock });
    const pod = agent.client(ip);
    assert.equal((await ask(pod, tokenTarget)).identity, 'a');
    agent.kube.faults.hang = true;
    agent.kube.cutConnections();
    const pass = (ms: number): void => void (aheadMs += ms);
    const readReady = async () =>
      (await fetch(`http://127.0.0.1:${agent.adminPort}/readyz`)).text();
    return { agent, pod, pass, readReady };
  }

  it('serves the known pods for a quarter of an hour, and no caller after that', async () => {
    const { agent, pod, pass, readReady } = await openCutOff({});
    await using _ = agent;
    pass(890_000);
    assert.equal((await ask(pod, tokenTarget, { connection: 'kept' })).identity, 'a');
    pass(15_000);
    for (const [target, connection] of [
      [tokenTarget, 'kept'],
      [tokenTarget, 'new'],
      [instance, 'new'],
    ] as const) {
      const { status, text } = await ask(pod, target, { connection });
      assert.equal(status, 503, target);
      assert.match(text, /Pod information for this node is stale/);
    }
    assert.match(await readReady(), /"pod_ips_current":"pods are known by address only/);
    // The first event is the missed one: the address belongs to another pod.
    agent.kube.delete({ kind: 'Pod', namespace: 'default', name: 'p' });
    const next = { name: 'q', nodeName: 'node-1', ips: ['127.0.0.12'], binding: 'app' };
    agent.kube.apply(createPodManifest(next));
    agent.kube.faults.hang = false;
    agent.kube.cutConnections();
    await eventually(async () => {
      assert.equal((await ask(agent.client('127.0.0.12'), tokenTarget)).identity, 'a');
    }, 15_000);
    assert.equal((await ask(pod, tokenTarget)).status, 503, 'the deleted pod');
    assert.doesNotMatch(await readReady(), /pod_ips_current/);
  });

  it('serves no pod with rights that are older than a day, unless that is off', async () => {
    const unlimited = { 'address-staleness-limit': '0' };
    const { agent, pod, pass, readReady } = await openCutOff(unlimited);
    await using _ = agent;
    pass(86_000_000);
    assert.equal((await ask(pod, tokenTarget)).status, 200);
    pass(1_000_000);
    const { status, text } = await ask(pod, tokenTarget);
    assert.equal(status, 503);
    assert.match(text, /not proven current: pods for 1 d 0 h, .*bindings for 1 d 0 h/);
    assert.match(await readReady(), /"rights_current":"no pod gets a token: .*pods for 1 d 0 h/);
    assert.equal((await ask(pod, instance)).status, 200);
    const other = await openCutOff({ ...unlimited, 'rights-staleness-limit': '0' });
    await using _other = other.agent;
    other.pass(100_000_000);
    assert.equal((await ask(other.pod, tokenTarget)).status, 200);
  });
});

describe('a node with a clock an hour', () => {
  // MSAL signs with the time of the process, which Entra ID checks.
  const kinds = credentialKinds.filter((kind) => kind !== 'certificate');
  for (const [how, aheadMs, least, most] of [
    // A pod that gets an hour, while its clock is corrected meanwhile, would keep the token too long.
    ['ahead', hourMs, 300, 300],
    ['behind', -hourMs, 3_500, 3_600],
  ] as const) {
    it(`${how} gets tokens of types 0, 1, 3 and 4, and keeps them`, async () => {
      const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
      const prepare = async (testBed: EntraTestBed) => {
        bindPod(testBed.kube);
        for (const kind of kinds) await bindApplication(testBed, kind, kind);
        testBed.entra.setTokenLifetime(hourMs);
        testBed.kube.apply(createAzureIdentity({ name: 'a', ...idsOf(identityA) }));
        const binding = { name: 'a', azureIdentity: 'a', selector: 'app' };
        testBed.kube.apply(createAzureIdentityBinding(binding));
      };
      await using agent = await openEntraAgent({}, prepare, { clock });
      agent.imds.setTokenLifetime(hourMs);
      const clientIds = kinds.map((kind) => createEntraApplication(kind).clientId);
      for (const clientId of [identityA.clientId, ...clientIds]) {
        const fetchIt = () => ask(agent.client(ip), `${tokenTarget}&client_id=${clientId}`);
        const { status, text, body } = await fetchIt();
        assert.equal(status, 200, text);
        const endsInS = Number(body['expires_on']) - Date.now() / 1000;
        assert.ok(endsInS > 3_500 && endsInS <= 3_600, `it ends in ${endsInS} s`);
        const leftS = Number(body['expires_in']);
        assert.ok(leftS >= least && leftS <= most, `${leftS} s`);
        assert.equal((await fetchIt()).status, 200);
      }
      assert.equal(agent.entra.requests().length, kinds.length);
      assert.equal(agent.imds.requests().length, 2, 'of type 0, and the assertion of type 4');
    });
  }
});

describe('an identity binding', () => {
  async function bound(testBed: EntraTestBed): Promise<void> {
    bindPod(testBed.kube);
    await bindApplication(testBed, 'federated_binding', 'bound');
  }

  const fetchFor = (agent: EntraAgent, resource: string) =>
    ask(agent.client(ip), tokenTarget.replace('vault', resource));

  it('survives a new service account of the same name: the refused token is made anew, once', async () => {
    await using agent = await openEntraAgent({}, bound);
    const { kube, identityBindings } = agent;
    for (const resource of ['one', 'two', 'three']) {
      if (resource === 'three') {
        kube.delete({ kind: 'ServiceAccount', ...podAccount });
        kube.apply(createServiceAccount(podAccount));
      }
      assert.equal((await fetchFor(agent, resource)).status, 200);
    }
    const statuses = identityBindings.requests.map(({ status }) => status);
    assert.deepEqual(statuses, [200, 200, 401, 200]);
    const made = kube.requests.filter(({ url }) => url.endsWith('/robot/token'));
    assert.equal(made.length, 2, 'one token for each account');
    const atCluster = kube.requests.filter(({ url }) => url.includes('oauth2'));
    assert.deepEqual(atCluster, [], 'under the ordinary name');
  });

  it('gives nothing any more when the right has ended, but what is cached', async () => {
    await using agent = await openEntraAgent({}, bound);
    const { kube, identityBindings } = agent;
    assert.equal((await fetchFor(agent, 'one')).status, 200);
    const [clientId = ''] = identityBindings.tenants.keys();
    const rights = createIdentityUse(clientId, podAccount);
    for (const right of rights) {
      const name = stringAt(asRecord(asRecord(right)?.['metadata']), 'name');
      kube.delete({ kind: stringAt(asRecord(right), 'kind'), name });
    }
    assert.equal((await fetchFor(agent, 'one')).status, 200, 'from the cache');
    const refused = await fetchFor(agent, 'two');
    assert.equal(refused.status, 400);
    assert.match(refused.text, /may not use the managed identity/);
    for (const object of rights) kube.apply(object);
    await eventually(async () => {
      assert.equal((await fetchFor(agent, 'two')).status, 200);
    }, 8_000);
  });
});
