/**
 * Identification of callers under forged or ambiguous conditions: forged addresses, packets without
 * redirect, IPv4 in IPv6 sockets. Run the same scenario in both modes to see the effect of kernel
 * attestation compared to addresses alone.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../test-bed/eventually.ts';
import { assertRefused, assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const forgedAddress: Scenario = {
  name: 'forged-address',
  title: 'A pod that takes another pod’s address on a bridge gets no token of it.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('victim', 'victim');
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim' });
    const thief = await testBed.addPod({ name: 'thief' });
    await testBed.untilAgentKnows();
    assertToken(await victim.ask(), 'victim');
    const run = async (pod: string, line: string): Promise<void> => {
      const [tool = '', ...args] = line.split(' ');
      const { code, stderr } = await testBed.environment.runInPod(pod, tool, args);
      assert.equal(code, 0, `${line}: ${stderr}`);
    };
    // The thief claims the address on the bridge; ARP lets any sender of raw frames do that.
    testBed.log(`thief: takes the address ${victim.ip} over`);
    await run('victim', 'ip link set eth0 down');
    await run('thief', `ip addr add ${victim.ip}/24 dev eth0`);
    await testBed.environment.runInNode('ip', ['neigh', 'flush', 'to', victim.ip]);
    const forged = await thief.ask({ from: victim.ip });
    const own = await thief.ask();
    assertRefused(own, { status: 400, says: /pod default\/thief has no label/ });
    assertRefused(forged, {
      status: 503,
      says: testBed.attests
        ? /but a process opened it that is not of/
        : /but by another network link than/,
    });
    return 'the forged address got no token; the thief got its own identity';
  },
};

const unrecorded: Scenario = {
  name: 'unrecorded-connection',
  title: 'A connection without a record reaches the agent unattested, and is refused.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('recorded', 'recorded');
    const pod = await testBed.addPod({ name: 'app', binding: 'recorded' });
    await testBed.settle();
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'recorded');
    // In the pod's network but not in its cgroup: for the BPF programs like a hand-crafted packet.
    await using outsider = await testBed.environment.openOutsider('app');
    // For seconds after a start a connection may count as older and gets 503. Not many of them: netfilter
    // remembers each for two minutes, and changes the port of a later one with the same address and port.
    const answer = await eventually(async () => {
      await delay(500);
      const reply = await outsider.request({
        method: 'GET',
        target: '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example',
        headers: ['Metadata', 'true'],
        connection: 'new',
        timeoutMs: 5_000,
      });
      assert.ok(
        reply.outcome === 'answered',
        'netfilter, behind the programs, did not redirect it to the agent',
      );
      assert.ok(!testBed.attests || reply.status !== 503, reply.body);
      return reply;
    }, 10_000);
    assert.deepEqual(testBed.uncheckedRequests(), []);
    if (!testBed.attests) {
      assert.equal(answer.status, 200);
      return 'by address alone it is served as the pod';
    }
    assert.equal(answer.status, 403, answer.body);
    assert.match(answer.body, /no record of who opened this connection/);
    await eventually(async () => {
      assert.ok(
        (await testBed.agent.metric('nmi_unrecorded_callers_total{outcome="refused"}')) > 0,
        'the connection was not counted',
      );
    });
    assert.ok((await testBed.agent.metric('nmi_ebpf_connects_total{outcome="redirected"}')) > 0);
    return 'refused with 403; nothing reached the real service';
  },
};

const mappedAddress: Scenario = {
  name: 'mapped-address',
  title: 'An IPv6 socket with the IPv4-mapped address, as JVMs use, is served.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('mapped', 'mapped');
    const pod = await testBed.addPod({ name: 'jvm', binding: 'mapped' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask({ host: '::ffff:169.254.169.254' }), 'mapped');
    assertToken(await pod.ask({ host: '::ffff:169.254.169.254', connection: 'kept' }), 'mapped');
    assertToken(await pod.ask({ host: '::ffff:169.254.169.254', connection: 'kept' }), 'mapped');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return 'three requests served, none bypassed the agent';
  },
};

export const attestedScenarios: readonly Scenario[] = [forgedAddress, unrecorded, mappedAddress];
