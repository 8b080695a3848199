/** Many pods at once: each gets its own identity only. */
import assert from 'node:assert/strict';
import { describePace, checkLoad } from '../../pods/load-verdict.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const twoAtOnce: Scenario = {
  name: 'two-at-once',
  title: 'Two pods request tokens for 4 s on new and kept connections: each gets its own identity.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const names = ['both-a', 'both-b'];
    const durationMs = 4_000;
    const reports = await Promise.all(
      names.map(async (name) => {
        testBed.bind(name, name);
        const pod = await testBed.addPod({ name, binding: name });
        const both = await Promise.all([
          pod.load({ durationMs, concurrency: 2 }),
          pod.load({ durationMs, concurrency: 2, newConnectionPerRequest: false }),
        ]);
        for (const report of both) checkLoad(pod.name, [report], name);
        return both;
      }),
    );
    const fresh = reports.map(([report]) => report);
    const kept = reports.map(([, report]) => report);
    assert.deepEqual(
      testBed.upstreamTokens().toSorted(),
      names.map((name) => `${name} to ${testBed.environment.nodeIp}`),
      'one fetch upstream for each identity',
    );
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `new connections ${describePace(fresh)}; kept ${describePace(kept)}; two fetches upstream`;
  },
};

const identities = 5;
/** In a namespace each pod is a process of about 60 MB; on loopback it is only an address. */
const podCount = { namespaces: 12, loopback: 40 } as const;

const dozens: Scenario = {
  name: 'pods-by-the-dozen',
  title: 'Dozens of pods with five identities request tokens at once: each gets the right one.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const count = podCount[testBed.environment.kind];
    for (let index = 0; index < identities; index += 1) testBed.bind(nameOf(index), nameOf(index));
    const pods = await Promise.all(
      Array.from({ length: count }, (_, index) =>
        testBed.addPod({ name: `pod-${index}`, binding: nameOf(index) }),
      ),
    );
    let served = 0;
    await Promise.all(
      pods.map(async (pod, index) => {
        const report = await pod.load({ durationMs: 1_500, concurrency: 2 });
        const { granted } = checkLoad(pod.name, [report], nameOf(index));
        assert.ok(granted > 0, `pod ${pod.name} got nothing`);
        served += granted;
      }),
    );
    assert.deepEqual(
      testBed.upstreamTokens().toSorted(),
      Array.from(
        { length: identities },
        (_, index) => `${nameOf(index)} to ${testBed.environment.nodeIp}`,
      ),
    );
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `${count} pods, ${served} requests, ${identities} fetches upstream`;
  },
};

export const crowdScenarios: readonly Scenario[] = [twoAtOnce, dozens];

function nameOf(index: number): string {
  return `dozen-${index % identities}`;
}
