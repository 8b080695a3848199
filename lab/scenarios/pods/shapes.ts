/** Pods with a user namespace of their own, and pods with more than one network. */
import assert from 'node:assert/strict';
import type { LabPod } from '../../pods/pod.ts';
import { succeed } from '../../test-bed/node-view.ts';
import { assertRefused, assertToken, assertUpstream } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const userNamespace: Scenario = {
  name: 'user-namespace',
  title: 'A pod with hostUsers: false, in a user namespace of its own, gets its own token.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('rootless', 'rootless');
    const bound = await testBed.addPod({ name: 'rootless', binding: 'rootless' });
    const unbound = await testBed.addPod({ name: 'unbound' });
    await testBed.untilAgentKnows();
    assertToken(await (await inUserNamespace(testBed, bound)).ask(), 'rootless');
    const refused = await (await inUserNamespace(testBed, unbound)).ask();
    assertRefused(refused, { status: 400, says: /pod default\/unbound has no label/ });
    assertUpstream(testBed, ['rootless']);
    return 'the bound pod got its own identity, the unbound one none';
  },
};

async function inUserNamespace(testBed: TestBed, pod: LabPod): Promise<LabPod> {
  const through = ['unshare', '--user', '--map-root-user', '--cgroup', '--'] as const;
  return pod.through(await testBed.environment.openContainer(pod.name, through));
}

const secondIp = '10.99.0.5';
const secondGateway = '10.99.0.1';

const secondInterface: Scenario = {
  name: 'second-interface',
  title:
    'A pod with a second network, as by Multus, is known by the address in its status only: it needs a route there.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('second', 'second');
    const pod = await testBed.addPod({ name: 'second', binding: 'second' });
    await testBed.untilAgentKnows();
    await addSecond(testBed, pod);
    assertToken(await pod.ask(), 'second');
    assertRefused(await pod.ask({ from: secondIp }), { status: 503, says: /^No running pod/ });
    await runIp(testBed, pod, 'route', 'replace', 'default', 'via', secondGateway);
    assertRefused(await pod.ask(), { status: 503, says: /^No running pod/ });
    // With eBPF, the address is replaced before the kernel looks for the route.
    for (const ip of ['169.254.169.254', '169.254.25.79']) {
      await runIp(testBed, pod, 'route', 'add', ip, 'via', '10.244.0.1');
    }
    assertToken(await pod.ask(), 'second');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return 'served from the address in its status, refused from the other one';
  },
};

/** A second link to the node, removed with the pod. */
async function addSecond(testBed: TestBed, pod: LabPod): Promise<void> {
  const file = testBed.environment.podNamespace(pod.name);
  const peer = ['peer', 'name', 'net1', 'netns', file];
  await succeed(testBed, 'ip', 'link', 'add', 'second', 'type', 'veth', ...peer);
  await succeed(testBed, 'ip', 'address', 'add', `${secondGateway}/24`, 'dev', 'second');
  await succeed(testBed, 'ip', 'link', 'set', 'second', 'up');
  await runIp(testBed, pod, 'address', 'add', `${secondIp}/24`, 'dev', 'net1');
  await runIp(testBed, pod, 'link', 'set', 'net1', 'up');
}

async function runIp(testBed: TestBed, pod: LabPod, ...words: readonly string[]): Promise<void> {
  const { code, stderr } = await testBed.environment.runInPod(pod.name, 'ip', words);
  assert.equal(code, 0, `ip ${words.join(' ')}: ${stderr}`);
}

export const shapeScenarios: readonly Scenario[] = [userNamespace, secondInterface];
