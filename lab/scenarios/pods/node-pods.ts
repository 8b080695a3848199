/**
 * Pods on the host network. With eBPF one with a binding gets its own identity; the others are the node's own
 * pods, and reach the real service whether the agent runs or not.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  untilToken,
} from '../../test-bed/reply-checks.ts';
import { correlationHeader } from '../../../src/nmi/sources/imds/loop-detection.ts';
import type { LabPod } from '../../pods/pod.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const instance = { target: '/metadata/instance?api-version=2021-02-01' };

/** Whether the real service answered: the agent gives each of its calls an id, and this client does not. */
export async function isDirect(testBed: TestBed, pod: LabPod): Promise<boolean> {
  const before = countDirect(testBed);
  assert.equal((await pod.ask({ ...instance, connection: 'new' })).status, 200);
  return countDirect(testBed) > before;
}

function countDirect(testBed: TestBed): number {
  return testBed.imds.requests().filter(({ headers }) => !(correlationHeader in headers)).length;
}

const nodePods: Scenario = {
  name: 'host-network-pods',
  title:
    'A pod on the host network with a binding gets its own identity; any other reaches the node’s service, agent or not.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('on-host', 'on-host');
    testBed.bind('app', 'app');
    const options = { hostNetwork: true, excepted: true };
    const bound = await testBed.addPod({
      name: 'bound',
      binding: 'on-host',
      hostNetwork: true,
      excepted: !testBed.attests,
    });
    const driver = await testBed.addPod({ name: 'driver', ...options });
    const app = await testBed.addPod({ name: 'app', binding: 'app' });
    const plain = await testBed.addPod({ name: 'plain' });
    await testBed.untilAgentKnows();
    assertToken(await driver.ask(), 'node');
    if (!testBed.attests) {
      assertToken(await bound.ask(), 'node');
      return 'by address alone such pods are not redirected and have the node’s identity';
    }
    await untilToken(bound, 'on-host');
    assertToken(await app.ask(), 'app');
    await eventually(async () => assert.ok(await isDirect(testBed, driver)));
    assert.ok(!(await isDirect(testBed, bound)));

    testBed.log('the agent is away for five seconds');
    await testBed.agent.stop();
    const untilMs = performance.now() + 5_000;
    let reads = 0;
    while (performance.now() < untilMs) {
      const reply = await driver.ask({ ...instance, connection: 'new' });
      assert.equal(reply.status, 200, `the driver was refused: ${reply.failure ?? reply.status}`);
      reads += 1;
      for (const pod of [bound, app, plain]) {
        assert.equal((await pod.ask({ connection: 'new' })).failure, 'ECONNREFUSED');
      }
      await delay(100);
    }
    await testBed.startAgent();
    assert.ok(await isDirect(testBed, driver), 'the next agent redirected it');

    testBed.log('a binding comes to the driver and goes again');
    testBed.bind('driver', 'driver');
    assertToken(await driver.ask({ connection: 'kept' }), 'node');
    testBed.relabel(driver, 'driver');
    await untilToken(driver, 'driver', { connection: 'kept' });
    testBed.relabel(driver, undefined);
    await eventually(async () => assert.ok(await isDirect(testBed, driver)));
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `${reads} reads without an agent, none failed; the binding decided, at once`;
  },
};

const nodePodsRefused: Scenario = {
  name: 'host-network-refused',
  title: 'With --host-network=refuse, no pod on the host network gets a token from the agent.',
  needs: 'namespaces',
  inTour: false,
  agentFlags: ['--host-network=refuse'],
  run: async (testBed) => {
    if (!testBed.attests) return 'nothing to refuse: such pods are not redirected in this mode';
    testBed.bind('on-host', 'on-host');
    const pods = [
      await testBed.addPod({ name: 'bound', binding: 'on-host', hostNetwork: true }),
      await testBed.addPod({ name: 'plain', hostNetwork: true }),
    ];
    await testBed.untilAgentKnows();
    for (const pod of pods) {
      assertRefused(await pod.ask(), { status: 403, says: /is on the host network/ });
    }
    assertUntouched(testBed);
    return 'both refused with 403, nothing reached the real service';
  },
};

export const nodePodScenarios: readonly Scenario[] = [nodePods, nodePodsRefused];
