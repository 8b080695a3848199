/** Many at once: everybody gets their own identity and nobody else's. */
import assert from 'node:assert/strict';
import { describePace, judgeLoad } from '../../pods/load-verdict.ts';
import type { Scenario } from '../../world/scenario.ts';

const twoAtOnce: Scenario = {
  name: 'two-at-once',
  title:
    'Two pods request tokens for 10 s on new and kept connections: each gets its own identity.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const names = ['both-a', 'both-b'];
    const durationMs = 10_000;
    const reports = await Promise.all(
      names.map(async (name) => {
        world.bind(name, name);
        const pod = await world.addPod({ name, binding: name });
        const both = await Promise.all([
          pod.load({ durationMs, concurrency: 2 }),
          pod.load({ durationMs, concurrency: 2, newConnectionPerRequest: false }),
        ]);
        for (const report of both) judgeLoad(pod.name, [report], name);
        return both;
      }),
    );
    const fresh = reports.map(([report]) => report);
    const kept = reports.map(([, report]) => report);
    assert.deepEqual(
      world.upstreamTokens().toSorted(),
      names.map((name) => `${name} to ${world.ground.nodeIp}`),
      'one fetch upstream for each identity',
    );
    assert.deepEqual(world.uncheckedRequests(), []);
    return `new connections ${describePace(fresh)}; kept ${describePace(kept)}; two fetches upstream`;
  },
};

const identities = 5;
/** A pod of its own namespace is a process of some 60 MB; on loopback it is an address. */
const podCount = { namespaces: 12, loopback: 40 } as const;

const dozens: Scenario = {
  name: 'pods-by-the-dozen',
  title: 'Dozens of pods with five identities request tokens at once: each gets the right one.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    const count = podCount[world.ground.kind];
    for (let index = 0; index < identities; index += 1) world.bind(nameOf(index), nameOf(index));
    const pods = await Promise.all(
      Array.from({ length: count }, (_, index) =>
        world.addPod({ name: `pod-${index}`, binding: nameOf(index) }),
      ),
    );
    let served = 0;
    await Promise.all(
      pods.map(async (pod, index) => {
        const report = await pod.load({ durationMs: 1_500, concurrency: 2 });
        const { granted } = judgeLoad(pod.name, [report], nameOf(index));
        assert.ok(granted > 0, `pod ${pod.name} got nothing`);
        served += granted;
      }),
    );
    assert.deepEqual(
      world.upstreamTokens().toSorted(),
      Array.from(
        { length: identities },
        (_, index) => `${nameOf(index)} to ${world.ground.nodeIp}`,
      ),
    );
    assert.deepEqual(world.uncheckedRequests(), []);
    return `${count} pods, ${served} requests, ${identities} fetches upstream`;
  },
};

export const crowdScenarios: readonly Scenario[] = [twoAtOnce, dozens];

function nameOf(index: number): string {
  return `dozen-${index % identities}`;
}
