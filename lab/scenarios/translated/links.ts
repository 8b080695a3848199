/** When a link proves nothing: its address has passed to another pod, or others share it. */
import assert from 'node:assert/strict';
import { succeed } from '../../test-bed/node-view.ts';
import { assertRefused, assertToken, sayReply } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import { askSettled } from './callers.ts';
import { agentAddress, askByFrames, metadataAddress, silenceKernel } from './frames.ts';

const reusedIp = '10.244.0.231';

const reusedAddress: Scenario = {
  name: 'unrecorded-address-reuse',
  title:
    'A caller without a record in a new pod with a reused address gets no token of the pod that had it before.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['former', 'latter']) testBed.bind(name, name);
    const former = await testBed.addPod({
      name: 'former',
      binding: 'former',
      link: 'own',
      ip: reusedIp,
    });
    await testBed.untilAgentKnows();
    const { environment } = testBed;
    const inFormer = former.through(await environment.openInside('former'));
    assertToken(await askSettled(() => inFormer.ask()), 'former');
    // The API does not report the end of the one pod, nor the other one.
    await environment.closePod('former');
    const latter = await testBed.addPod({
      name: 'latter',
      binding: 'latter',
      link: 'own',
      ip: reusedIp,
      announced: false,
    });
    const inLatter = latter.through(await environment.openInside('latter'));
    const early = await inLatter.ask();
    assertRefused(early, { status: 503, says: /by another network link than/ });
    testBed.deletePodObject(former);
    testBed.announce(latter);
    await testBed.untilAgentKnows();
    assertToken(await askSettled(() => inLatter.ask()), 'latter');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return 'refused until the API reported the new pod, then served as that';
  },
};

const bridge = 'cni0';
const routedIp = '10.244.0.232';

const sharedLink: Scenario = {
  name: 'shared-link',
  title:
    'A bridge with a route of its own for each pod is no link of their own: a forged address gets no token there.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('shared', 'shared');
    const victim = await testBed.addPod({ name: 'victim', binding: 'shared', ip: routedIp });
    const thief = await testBed.addPod({ name: 'thief' });
    await testBed.untilAgentKnows();
    assertToken(await victim.ask(), 'shared');
    await silenceKernel(testBed, victim);
    await giveAnswers(testBed, victim.ip, 'thief');
    try {
      // First for the victim alone, then for both.
      for (const { ip } of [victim, thief]) {
        await succeed(testBed, 'ip', 'route', 'add', `${ip}/32`, 'dev', bridge);
        for (const to of [metadataAddress, agentAddress]) {
          const forged = await askSettled(() =>
            askByFrames(testBed, thief, { link: 'bridge', from: victim.ip, to }),
          );
          // By address, this is the price of a shared bridge.
          if (!testBed.attests) continue;
          assert.equal(forged.identity, undefined, sayReply(forged));
          assert.equal(forged.status, 403, sayReply(forged));
        }
      }
    } finally {
      for (const { ip } of [victim, thief]) {
        await testBed.environment.runInNode('ip', ['route', 'delete', `${ip}/32`, 'dev', bridge]);
      }
      await succeed(testBed, 'ip', 'neigh', 'del', victim.ip, 'dev', bridge);
    }
    return testBed.attests ? 'refused with 403' : 'by address, nothing distinguishes the two';
  },
};

/** The effect of a forged ARP reply: the node sends what is for the address to this pod. */
async function giveAnswers(testBed: TestBed, ip: string, pod: string): Promise<void> {
  const { stdout } = await testBed.environment.runInPod(pod, 'cat', [
    '/sys/class/net/eth0/address',
  ]);
  const entry = [ip, 'lladdr', stdout.trim(), 'dev', bridge, 'nud', 'permanent'];
  await succeed(testBed, 'ip', 'neigh', 'replace', ...entry);
}

export const linkScenarios: readonly Scenario[] = [reusedAddress, sharedLink];
