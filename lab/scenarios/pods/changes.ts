/** The cluster changes under running pods: cached state must not outlive the objects behind it. */
import assert from 'node:assert/strict';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import type { LabIdentity } from '../../fakes/token.ts';
import { OwnTime } from '../../pods/own-time.ts';
import type { LabPod } from '../../pods/pod.ts';
import { addApplication, federatedTo } from '../../test-bed/entra-objects.ts';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertToken,
  assertUpstream,
  untilHeld,
  untilRefused,
  untilToken,
  type Refusal,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { createPodManifest, createServiceAccount } from '../../fakes/kube/manifests.ts';
import { nodeName } from '../../test-bed/test-bed.ts';

/** The agent lets a request wait for 2 s at most. */
const pendingWaitMs = 2_000;
/** Old enough that no related object can still be on its way: a missing one stays missing. */
const objectAgeMs = 3_600_000;
const noBinding: Refusal = { status: 400, says: /^Identity not found: .*no AzureIdentityBinding/ };
const noIdentity: Refusal = { status: 400, says: /^Identity not found: .*has no AzureIdentity / };
const noLabel: Refusal = { status: 400, says: /^Identity not found: .*has no label/ };
const noPod: Refusal = { status: 503, says: /^No running pod /, retryAfterS: 1 };

const identityEdited: Scenario = {
  name: 'identity-edited',
  title: 'An edited AzureIdentity takes effect with the next request.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('edit-old', 'edit');
    const next = testBed.assignIdentity('edit-next');
    const last = testBed.assignIdentity('edit-last');
    const pod = await testBed.addPod({ name: 'app', binding: 'edit' });
    await testBed.untilAgentKnows();
    const { pid } = testBed.agent;
    const kept = { connection: 'kept' };
    assertToken(await pod.ask(kept), 'edit-old');
    const ref = { kind: 'AzureIdentity', name: 'edit-old' };
    const { clientId, resourceId } = next;
    testBed.kube.patch(ref, { spec: { clientID: clientId, resourceID: resourceId } });
    await untilToken(pod, 'edit-next', kept);
    testBed.kube.patch(ref, { spec: { clientID: '', resourceID: last.resourceId } });
    await untilToken(pod, 'edit-last', kept);
    assert.equal(testBed.agent.pid, pid, 'the agent was restarted');
    assertUpstream(testBed, ['edit-old', 'edit-next', 'edit-last']);
    return 'client id and then resource id changed, both on the connection that was open before';
  },
};

const identityRevoked: Scenario = {
  name: 'identity-revoked',
  title:
    'Tokens of a revoked AzureIdentity are fetched anew, those of others stay; a bad time is refused.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    const assigned = testBed.bind('revoked', 'both');
    const account = { namespace: 'default', name: 'robot' };
    testBed.kube.apply(createServiceAccount(account));
    const federated = createEntraApplication('federated', federatedTo(account));
    addApplication(testBed, federated, { type: 3 }, 'both');
    const pod = await testBed.addPod({ name: 'app', binding: 'both', serviceAccount: 'robot' });
    await testBed.untilAgentKnows();
    const tokenOf = async ({ name, clientId }: LabIdentity): Promise<unknown> => {
      const reply = await pod.ask({ query: `client_id=${clientId}`, connection: 'kept' });
      assertToken(reply, name);
      return reply.body['access_token'];
    };
    const revoke = (name: string, notBefore: string | null): void => {
      testBed.kube.patch({ kind: 'AzureIdentity', name }, { spec: { notBefore } });
    };
    /** Upstream requests of an identity: IMDS returns the same token again, as the real one does. */
    const fetchesOf = ({ name }: LabIdentity): number =>
      testBed.upstreamTokens().filter((each) => each.startsWith(`${name} `)).length +
      testBed.entra.requests().filter(({ identity }) => identity === name).length;
    let slowestMs = 0;
    for (const [revoked, other] of [
      [assigned, federated],
      [federated, assigned],
    ] as const) {
      const [before, kept] = [await tokenOf(revoked), await tokenOf(other)];
      assert.equal(await tokenOf(revoked), before, 'from memory');
      const [fetches, others] = [fetchesOf(revoked), fetchesOf(other)];
      using time = new OwnTime();
      revoke(revoked.name, new Date().toISOString());
      await eventually(async () => {
        await tokenOf(revoked);
        assert.ok(fetchesOf(revoked) > fetches, 'a token from before');
      });
      slowestMs = Math.max(slowestMs, time.nowMs());
      const after = await tokenOf(revoked);
      if (revoked === federated) assert.notEqual(after, before);
      assert.equal(await tokenOf(revoked), after);
      assert.equal(await tokenOf(other), kept, 'the other identity was not revoked');
      assert.deepEqual([fetchesOf(revoked), fetchesOf(other)], [fetches + 1, others]);
    }
    assert.ok(slowestMs < 1_000, `the last old token ${Math.round(slowestMs)} ms after the write`);

    const query = { query: `client_id=${assigned.clientId}` };
    revoke('revoked', new Date(Date.now() + 3_600_000).toISOString());
    const says =
      /AzureIdentity default\/revoked of pod default\/app has a spec\.notBefore in the future/;
    await untilRefused(pod, { status: 400, says }, query);
    revoke('revoked', 'yesterday');
    await untilRefused(pod, { status: 400, says: /^Identity not found: / }, query);
    revoke('revoked', null);
    await untilToken(pod, 'revoked', query);
    assertUpstream(testBed, ['revoked', 'revoked', 'revoked']);
    return `the last old token ${Math.round(slowestMs)} ms after the write; a time in the future and no date refused`;
  },
};

const bindingDeleted: Scenario = {
  name: 'binding-deleted',
  title: 'A deleted binding ends the right to a token that is still cached.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('unbind', 'unbind');
    const pod = await testBed.addPod({ name: 'app', binding: 'unbind' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'unbind');
    testBed.deleteObject('AzureIdentityBinding', 'unbind');
    using time = new OwnTime();
    await untilRefused(pod, noBinding);
    const afterMs = time.nowMs();
    assert.ok(afterMs < 1_000, `still served ${Math.round(afterMs)} ms later`);
    testBed.addBinding('unbind', 'unbind', 'unbind');
    await untilToken(pod, 'unbind');
    // The deletion also evicted the token: it is fetched again for the new binding.
    assertUpstream(testBed, ['unbind', 'unbind']);
    return `refused ${Math.round(afterMs)} ms after the deletion, its token evicted`;
  },
};

const identityDeleted: Scenario = {
  name: 'identity-deleted',
  title: 'A deleted identity is refused; the error names the missing object.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('gone', 'gone');
    const pod = await testBed.addPod({ name: 'app', binding: 'gone' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'gone');
    testBed.deleteObject('AzureIdentity', 'gone');
    const reply = await untilRefused(pod, noIdentity);
    assert.match(reply.text, /AzureIdentity gone\b/);
    assertUpstream(testBed, ['gone']);
    return 'refused with the name of the missing identity';
  },
};

interface Tenant {
  readonly name: string;
  readonly pod: LabPod;
}

const fiveDeleted: Scenario = {
  name: 'five-deleted',
  title: 'Five pods lose identity, binding or life one by one; the others are served.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    const tenants: Tenant[] = [];
    for (let number = 1; number <= 5; number++) {
      const name = `five-${number}`;
      testBed.bind(name, name);
      tenants.push({ name, pod: await testBed.addPod({ name, binding: name }) });
    }
    await testBed.untilAgentKnows();
    for (const { pod, name } of tenants) assertToken(await pod.ask(), name);
    const order = shuffle(tenants);
    const ways = shuffle(['AzureIdentity', 'AzureIdentityBinding', 'Pod', 'AzureIdentity', 'Pod']);
    const steps: string[] = [];
    const ended: { readonly pod: LabPod; readonly refusal: Refusal }[] = [];
    for (const [step, { name, pod }] of order.entries()) {
      const way = ways[step] ?? 'Pod';
      testBed.log(`${way} ${name} is deleted`);
      testBed.deleteObject(way, name);
      await testBed.untilAgentKnows();
      ended.push({ pod, refusal: refusals.get(way) ?? noPod });
      steps.push(`${way} ${name}`);
      for (const rest of order.slice(step + 1)) assertToken(await rest.pod.ask(), rest.name);
      await Promise.all(ended.map(({ pod: each, refusal }) => untilRefused(each, refusal)));
    }
    assertUpstream(
      testBed,
      tenants.map(({ name }) => name),
    );
    return `in the order ${steps.join(', ')}; no token was fetched twice`;
  },
};

const refusals: ReadonlyMap<string, Refusal> = new Map([
  ['AzureIdentity', noIdentity],
  ['AzureIdentityBinding', noBinding],
  ['Pod', noPod],
]);

/** A different order in every run, reported in the result. */
function shuffle<T>(items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((one, other) => one.at - other.at)
    .map(({ item }) => item);
}

const labelChanged: Scenario = {
  name: 'label-changed',
  title:
    'Changing the label of a running pod changes its identity; removing it removes the identity.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('label-one', 'label-one');
    testBed.bind('label-two', 'label-two');
    const pod = await testBed.addPod({ name: 'app', binding: 'label-one' });
    await testBed.untilAgentKnows();
    const kept = { connection: 'kept' };
    assertToken(await pod.ask(kept), 'label-one');
    testBed.relabel(pod, 'label-two');
    await untilToken(pod, 'label-two', kept);
    testBed.relabel(pod, undefined);
    await untilRefused(pod, noLabel, kept);
    testBed.relabel(pod, 'label-one');
    await untilToken(pod, 'label-one', kept);
    assertUpstream(testBed, ['label-one', 'label-two', 'label-one']);
    return 'switched to the other identity, to none and back, on one connection';
  },
};

const phases: Scenario = {
  name: 'pod-phases',
  title: 'Init containers of a Pending pod are served; a completed pod is not.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('phases', 'phases');
    const pod = await testBed.addPod({ name: 'job', binding: 'phases', phase: 'Pending' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'phases');
    const ref = { kind: 'Pod', name: 'job' };
    testBed.kube.patch(ref, { status: { phase: 'Running' } });
    assertToken(await pod.ask(), 'phases');
    for (const phase of ['Succeeded', 'Failed']) {
      testBed.kube.patch(ref, { status: { phase } });
      await untilRefused(pod, noPod);
    }
    assertUpstream(testBed, ['phases']);
    return 'served while Pending and Running, unknown once Succeeded or Failed';
  },
};

const unknownAddress: Scenario = {
  name: 'unknown-address',
  title: 'A request from an unknown address waits for a moment, then gets 503.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('unknown', 'unknown');
    const pod = await testBed.addPod({ name: 'ghost', binding: 'unknown', announced: false });
    const reply = await untilRefused(pod, noPod);
    assert.ok(reply.text.includes(pod.ip), 'the answer does not name the address');
    assert.ok(
      reply.durationMs > pendingWaitMs - 10,
      `answered after ${Math.round(reply.durationMs)} ms`,
    );
    assert.ok(reply.ownMs < pendingWaitMs + 900, `answered after ${Math.round(reply.ownMs)} ms`);
    assert.deepEqual(testBed.imds.requests(), []);
    return `503 with Retry-After after ${Math.round(reply.durationMs)} ms, nothing upstream`;
  },
};

const sharedAddress: Scenario = {
  name: 'shared-address',
  title: 'Two pods on one address never get each other’s identity; by address alone they get none.',
  needs: 'any',
  inTour: false,
  objectAgeMs,
  run: async (testBed) => {
    testBed.bind('shared-one', 'shared-one');
    testBed.bind('shared-two', 'shared-two');
    const pod = await testBed.addPod({ name: 'one', binding: 'shared-one' });
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), 'shared-one');
    const [ips, hostIp] = [[pod.ip], testBed.environment.nodeIp];
    testBed.kube.apply(
      createPodManifest({ name: 'two', nodeName, ips, hostIp, binding: 'shared-two' }),
    );
    await testBed.untilAgentKnows();
    if (testBed.attests) {
      assertToken(await pod.ask(), 'shared-one');
      assertUpstream(testBed, ['shared-one']);
      return 'the cgroup identified which of the two had dialed';
    }
    const ambiguous = { status: 503, says: /^More than one running pod /, retryAfterS: 1 };
    await untilRefused(pod, ambiguous);
    const waiting = await untilHeld(testBed, pod);
    testBed.deleteObject('Pod', 'one');
    const served = await waiting.reply;
    assertToken(served, 'shared-two');
    assert.ok(served.ownMs < pendingWaitMs, 'the deletion did not wake the request');
    assertUpstream(testBed, ['shared-one', 'shared-two']);
    return 'refused with 503 while both existed; served as soon as only one was left';
  },
};

export const changeScenarios: readonly Scenario[] = [
  identityEdited,
  identityRevoked,
  bindingDeleted,
  identityDeleted,
  fiveDeleted,
  labelChanged,
  phases,
  unknownAddress,
  sharedAddress,
];
