/**
 * Nodes that come and go, as Karpenter makes them: a Job waits for each, and its pod requests a token at once.
 * The lab has one node: each new one is the same namespace without redirect and agent, as it boots.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { asRecord, stringAt } from '../../../src/base/json-value.ts';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import { createServiceAccount } from '../../fakes/kube/manifests.ts';
import { resourceOfKind } from '../../fakes/kube/resources.ts';
import { addApplication, federatedTo } from '../../test-bed/entra-objects.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { makeBare } from '../../test-bed/node-view.ts';
import { createRandom } from '../../test-bed/random.ts';
import { assertUntouched, sayReply } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { nodeName, type TestBed } from '../../test-bed/test-bed.ts';

const startupTaint = 'entra-pod-identity/not-ready';
const ofKarpenter = 'karpenter.sh/unregistered';
/** More by `--times`. */
const nodesOfRound = 5;
/** Before the agent is ready, or after it. */
const slowestRegistrationMs = 2_500;

const freshNodes: Scenario = {
  name: 'fresh-nodes',
  title:
    'New nodes join with the startup taint, and a Job waits for each: the first token request of its pod succeeds.',
  needs: 'any',
  inTour: false,
  agentFlags: [`--startup-taint=${startupTaint}`],
  run: async (testBed) => {
    const account = { namespace: 'default', name: 'job' };
    testBed.kube.apply(createServiceAccount(account));
    addApplication(testBed, createEntraApplication('job', federatedTo(account)), { type: 3 });
    const failures: string[] = [];
    const waits: number[] = [];
    for (let count = 1; count <= nodesOfRound; count++) {
      if (testBed.environment.kind === 'namespaces') await makeBare(testBed);
      else await testBed.agent.stop();
      setTaints(testBed, [startupTaint, ofKarpenter]);
      testBed.launchAgent();
      const [registered, schedulable] = [register(testBed), untilSchedulable(testBed)];
      waits.push(await schedulable);
      await registered;
      const pod = await testBed.addPod({
        name: `job-${count}`,
        binding: 'job',
        serviceAccount: 'job',
      });
      const reply = await pod.ask();
      if (reply.identity !== 'job') failures.push(`node ${count}: ${sayReply(reply)}`);
      await testBed.removePod(pod);
    }
    assert.deepEqual(failures, [], `${failures.length} of ${nodesOfRound} first tokens failed`);
    assertUntouched(testBed);
    return `${nodesOfRound} nodes, schedulable ${Math.max(...waits)} ms after the start of the agent at the latest, 0 failed first tokens`;
  },
};

export const freshNodeScenarios: readonly Scenario[] = [freshNodes];

const random = createRandom(Date.now());

/** As Karpenter: in one write it removes its own taint and adds the startup taint, which may be gone by then. */
async function register(testBed: TestBed): Promise<void> {
  await delay(random() * slowestRegistrationMs);
  setTaints(testBed, [startupTaint]);
}

/** The scheduler puts no pod on the node before. Returns how long it took, in milliseconds. */
async function untilSchedulable(testBed: TestBed): Promise<number> {
  const startedAtMs = performance.now();
  await eventually(() => {
    assert.deepEqual(taintsOf(testBed), [], 'the node stays tainted');
  }, 20_000);
  return Math.round(performance.now() - startedAtMs);
}

function setTaints(testBed: TestBed, keys: readonly string[]): void {
  const taints = keys.map((key) => ({ key, effect: 'NoSchedule' }));
  testBed.kube.apply({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: nodeName },
    spec: { taints },
  });
}

function taintsOf(testBed: TestBed): readonly string[] {
  const resource = resourceOfKind('Node');
  const [node] = resource === undefined ? [] : testBed.kube.store.list(resource);
  const taints = asRecord(node?.['spec'])?.['taints'];
  return Array.isArray(taints) ? taints.map((taint) => stringAt(asRecord(taint), 'key')) : [];
}
