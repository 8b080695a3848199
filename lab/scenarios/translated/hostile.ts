/** Pods that use the trust in addresses and links, or the lack of records, against others. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { beside } from '../../pods/load-verdict.ts';
import type { LabPod } from '../../pods/pod.ts';
import { metricsLimitMs } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { assertRefused, assertToken, sayReply } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import { askSettled, linkKinds } from './callers.ts';
import { agentAddress, askByFrames, metadataAddress, silenceKernel } from './frames.ts';

const forgedOnLink: Scenario = {
  name: 'forged-on-link',
  title:
    'Packets with another pod’s address from another link: the answer goes to that pod, so there is no connection.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('victim', 'victim');
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim', link: 'own' });
    const thieves = [];
    for (const link of linkKinds) {
      thieves.push({ link, pod: await testBed.addPod({ name: `thief-${link}`, link }) });
    }
    await testBed.untilAgentKnows();
    assertToken(await victim.ask(), 'victim');
    // Otherwise the victim's kernel would end the connection, too.
    await silenceKernel(testBed, victim);
    const frames = thieves.flatMap(({ link, pod }) =>
      [metadataAddress, agentAddress].map((to) =>
        askByFrames(testBed, pod, { link, from: victim.ip, to }),
      ),
    );
    for (const reply of await Promise.all(frames)) {
      assert.equal(reply.failure, 'NO_ANSWER', sayReply(reply));
    }
    const sockets = thieves.map(async ({ pod }) => {
      const address = ['address', 'add', `${victim.ip}/32`, 'dev', 'eth0'];
      assert.equal((await testBed.environment.runInPod(pod.name, 'ip', address)).code, 0);
      return pod.ask({ from: victim.ip, timeoutMs: 3_000 });
    });
    for (const reply of await Promise.all(sockets)) {
      assert.equal(reply.failure, 'TIMEOUT', sayReply(reply));
    }
    assertToken(await victim.ask(), 'victim');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return 'six connections with a forged address were never established';
  },
};

/** Of the connection that both pods open from the same address. */
const sharedPort = 50_001;

const foreignRecord: Scenario = {
  name: 'foreign-record',
  title:
    'A pod makes a record under another pod’s address and port: it gets none of its tokens, and the record is not overruled.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['victim', 'thief']) testBed.bind(name, name);
    const [link] = linkKinds;
    assert.ok(link !== undefined);
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim', link });
    const thief = await testBed.addPod({ name: 'thief', binding: 'thief', link });
    await testBed.untilAgentKnows();
    const inside = thief.through(await testBed.environment.openInside('thief', victim.ip));
    assertToken(await askSettled(() => inside.ask()), 'thief');
    await usePort(testBed, sharedPort);
    assertToken(await inside.ask({ connection: 'kept' }), 'thief');
    await silenceKernel(testBed, victim);
    const fromPort = sharedPort;
    const answer = await askByFrames(testBed, victim, { link, fromPort });
    if (!testBed.attests) {
      assertToken(answer, 'victim');
      return 'by address alone each is served as itself';
    }
    assertRefused(answer, { status: 503, says: /but a process opened it that is not of the pod/ });
    await inside.client.closeConnection('kept');
    assertToken(await askSettled(() => victim.ask()), 'victim');
    return 'the thief was served as itself, and the connection with its record refused';
  },
};

/** The only source port of the network inside the thief. */
async function usePort(testBed: TestBed, port: number): Promise<void> {
  const file = '/proc/sys/net/ipv4/ip_local_port_range';
  const script = `echo ${port} ${port} > ${file}`;
  const { code, stderr } = await testBed.environment.runInPod('thief.inside', 'sh', ['-c', script]);
  assert.equal(code, 0, stderr);
}

const maxConnections = 384;
/** So many show that the pod holds what it can. */
const sufficient = maxConnections / 2;
const connections = 200;
const durationMs = 3_000;

const unrecordedFlood: Scenario = {
  name: 'unrecorded-flood',
  title:
    'A pod holds connections with records, without them and to the agent’s own address: one limit for all.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('flood', 'flood');
    const pod = await testBed.addPod({ name: 'flood', binding: 'flood', link: 'own' });
    await testBed.untilAgentKnows();
    const inside = pod.through(await testBed.environment.openInside('flood'));
    assertToken(await askSettled(() => inside.ask()), 'flood');
    const most = await holdMost(testBed, [
      [pod, metadataAddress],
      [pod, agentAddress],
      [inside, metadataAddress],
      [inside, agentAddress],
    ]);
    assert.ok(most >= sufficient, `only ${most} connections were open`);
    assert.ok(most <= maxConnections, `${most} connections of one pod`);
    const refused = await eventually(async () => {
      const count = await testBed.agent.metric('nmi_connections_refused_total{limit="per_caller"}');
      assert.ok(count > 0, 'no connection was refused');
      return count;
    }, metricsLimitMs);
    assertToken(await askSettled(() => pod.ask()), 'flood');
    return `${most} of ${4 * connections} connections open at once, ${refused} refused`;
  },
};

type Way = readonly [pod: LabPod, to: { readonly ip: string; readonly port: number }];

/**
 * The most connections that were open at once. They are held until the agent's metrics show that they
 * are: it keeps a rendering that took long for longer than they last.
 */
async function holdMost(testBed: TestBed, ways: readonly Way[]): Promise<number> {
  let most = 0;
  const endMs = performance.now() + metricsLimitMs;
  do most = Math.max(most, await hold(testBed, ways));
  while (most < sufficient && performance.now() < endMs);
  return most;
}

async function hold(testBed: TestBed, ways: readonly Way[]): Promise<number> {
  const attacks = ways.map(([pod, { ip, port }]) =>
    beside(
      pod.client.attack({
        style: 'hold',
        request: '',
        connections,
        durationMs,
        host: ip,
        port,
      }),
    ),
  );
  let most = 0;
  const over = Promise.all(attacks);
  do {
    most = Math.max(most, await testBed.agent.metric('nmi_connections'));
  } while ((await Promise.race([over, delay(100)])) === undefined);
  return most;
}

export const hostileScenarios: readonly Scenario[] = [forgedOnLink, foreignRecord, unrecordedFlood];
