/** Objects that arrive after the request that needs them, and one that never does. */
import assert from 'node:assert/strict';
import type { PodReply } from '../../pods/pod.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  assertUpstream,
  untilHeld,
  untilRefused,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

/** The agent lets a request wait for at most 2s. */
const pendingWaitMs = 2_000;

function assertInTime(reply: PodReply): void {
  assert.ok(reply.ownMs < pendingWaitMs, `answered after ${Math.round(reply.ownMs)} ms`);
}

const lateObjects: Scenario = {
  name: 'late-objects',
  title:
    'A request that arrives before the watch events of its pod, binding or identity waits and gets its token.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    testBed.bind('late-a', 'late-a');
    const latePod = await testBed.addPod({ name: 'late-pod', binding: 'late-a', announced: false });
    const unbound = await testBed.addPod({ name: 'late-binding', binding: 'late-b' });
    const bare = await testBed.addPod({ name: 'late-both', binding: 'late-c', announced: false });
    await testBed.untilAgentKnows();
    const durationsMs: number[] = [];

    const beforePod = await untilHeld(testBed, latePod);
    testBed.log('the pod’s object arrives');
    testBed.announce(latePod);
    const served = await beforePod.reply;
    assertToken(served, 'late-a');

    const beforeBinding = await untilHeld(testBed, unbound);
    testBed.log('binding and identity arrive');
    testBed.bind('late-b', 'late-b');
    const bound = await beforeBinding.reply;
    assertToken(bound, 'late-b');

    const beforeBoth = await untilHeld(testBed, bare);
    testBed.log('pod, binding and identity arrive, one after the other');
    testBed.announce(bare);
    testBed.addBinding('late-c', 'late-c', 'late-c');
    testBed.addIdentity('late-c');
    const both = await beforeBoth.reply;
    assertToken(both, 'late-c');

    for (const reply of [served, bound, both]) {
      assertInTime(reply);
      durationsMs.push(Math.round(reply.durationMs));
    }
    assertUpstream(testBed, ['late-a', 'late-b', 'late-c']);
    return `served in the same request after ${durationsMs.join(', ')} ms`;
  },
};

const bindingNever: Scenario = {
  name: 'binding-never-comes',
  title:
    'A missing binding is a transient error while pod or label is new, and permanent after that.',
  needs: 'any',
  inTour: false,
  objectAgeMs: 3_600_000,
  run: async (testBed) => {
    const pod = await testBed.addPod({ name: 'app' });
    const old = await testBed.addPod({ name: 'old', binding: 'never' });
    await testBed.untilAgentKnows();
    assertRefused(await pod.ask(), { status: 400, says: /has no label/ });
    const says = /^Identity not found: .*label aadpodidbinding=never, and no AzureIdentityBinding/;
    // The agent sees the label arrive and counts its age from then.
    testBed.relabel(pod, 'never');
    const young = await untilRefused(pod, { status: 503, says, retryAfterS: 2 });
    assert.ok(
      young.durationMs >= pendingWaitMs - 10,
      `waited ${Math.round(young.durationMs)} ms only`,
    );
    assertRefused(await old.ask(), { status: 400, says });
    assertUntouched(testBed);
    return '503 with Retry-After for a new label, 400 for one set an hour ago; nothing upstream';
  },
};

export const lateObjectScenarios: readonly Scenario[] = [lateObjects, bindingNever];
