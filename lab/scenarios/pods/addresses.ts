/** An address is reused after its pod: the next pod must not inherit anything. */
import assert from 'node:assert/strict';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  untilToken,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { createPodManifest } from '../../fakes/kube/manifests.ts';
import { nodeName } from '../../test-bed/test-bed.ts';

const addressReused: Scenario = {
  name: 'address-reused',
  title: 'A new pod on a reused address gets its own identity or none, never the old pod’s.',
  needs: 'namespaces',
  inTour: true,
  run: async (testBed) => {
    testBed.bind('reuse-one', 'reuse-one');
    testBed.bind('reuse-two', 'reuse-two');
    const first = await testBed.addPod({ name: 'first', binding: 'reuse-one' });
    const { ip } = first;
    assertToken(await first.ask(), 'reuse-one');
    await testBed.removePod(first);
    testBed.log(`pod first is deleted, its address ${ip} goes to the next`);
    const second = await testBed.addPod({ name: 'second', binding: 'reuse-two', ip });
    assertToken(await second.ask(), 'reuse-two');
    await testBed.removePod(second);
    const plain = await testBed.addPod({ name: 'third', ip });
    const says = /^Identity not found: pod default\/third has no label/;
    assertRefused(await plain.ask(), { status: 400, says });
    await testBed.removePod(plain);
    // A StatefulSet's pod returns with the same name, another UID and another label.
    const again = await testBed.addPod({ name: 'first', binding: 'reuse-two', ip });
    assertToken(await again.ask(), 'reuse-two');
    // An identity's token is evicted with its last pod, so the fourth pod's token is fetched again.
    assertUpstream(testBed, ['reuse-one', 'reuse-two', 'reuse-two']);
    return `four pods, one after another, on ${ip}: each got its own identity or none`;
  },
};

const connectionOutlived: Scenario = {
  name: 'kept-connection-outlives-pod',
  title: 'A connection that outlives its pod is closed, not served as the new pod.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('kept-one', 'kept-one');
    testBed.bind('kept-two', 'kept-two');
    const pod = await testBed.addPod({ name: 'before', binding: 'kept-one' });
    const kept = { connection: 'kept' };
    assertToken(await pod.ask(kept), 'kept-one');
    const [ips, hostIp] = [[pod.ip], testBed.environment.nodeIp];
    testBed.deletePodObject(pod);
    testBed.log('the object of pod before gives way to that of pod after, on the same address');
    testBed.kube.apply(
      createPodManifest({ name: 'after', nodeName, ips, hostIp, binding: 'kept-two' }),
    );
    if (testBed.attests) {
      // The process still belongs to the old pod, whatever the API reports about its address.
      await testBed.untilAgentKnows();
      const refusal = { status: 503, says: /a process opened it that is not of the pod/ };
      // The number of pods is the same before and after.
      await eventually(async () => assertRefused(await pod.ask(), refusal));
      assertRefused(await pod.ask(kept), refusal);
      assertUpstream(testBed, ['kept-one']);
      return 'neither the kept connection nor a new one had the new pod’s identity';
    }
    await untilToken(pod, 'kept-two');
    const outlived = await pod.ask(kept);
    assertRefused(outlived, { status: 503, says: /belongs to another pod now/, retryAfterS: 1 });
    assert.equal(outlived.headers.get('connection'), 'close');
    assertToken(await pod.ask(kept), 'kept-two');
    assertUpstream(testBed, ['kept-one', 'kept-two']);
    return 'refused with 503 and closed; the next connection had the new pod’s identity';
  },
};

export const addressScenarios: readonly Scenario[] = [addressReused, connectionOutlived];
