/** The Kubernetes API is unavailable: at the start, and later. */
import assert from 'node:assert/strict';
import { parseRecord } from '../../../src/base/json-value.ts';
import { startLimitMs } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  sayReply,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

/** The reflector's longest wait between two tries after a short outage. */
const recoveryMs = 15_000;

const awayAtStart: Scenario = {
  name: 'api-away-at-start',
  title:
    'Without the Kubernetes API at start, pods get 503 with Retry-After; when it is back, they are served.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('start-a', 'start-a');
    const pod = await testBed.addPod({ name: 'app', binding: 'start-a' });
    await testBed.agent.stop();
    takeAway(testBed);
    testBed.launchAgent();
    await eventually(async () => {
      assert.equal((await testBed.agent.page('livez'))?.status, 200, 'the agent is not live');
    }, startLimitMs);
    const reply = await pod.ask();
    assert.equal(reply.status, 503);
    assert.match(String(reply.body['error_description']), /^The agent is starting/);
    assert.equal(reply.headers.get('retry-after'), '1');
    const missing = await readMissing(testBed);
    assert.deepEqual(Object.keys(missing), ['watches']);
    for (const word of ['pods', 'identities', 'bindings', 'exceptions']) {
      assert.ok(String(missing['watches']).includes(word), `/readyz does not name ${word}`);
    }
    assert.equal((await testBed.agent.page('healthz'))?.text, 'Active');
    assert.equal((await testBed.agent.page('livez'))?.status, 200);
    assert.deepEqual(testBed.imds.requests(), [], 'an unknown pod made the agent ask upstream');
    bringBack(testBed);
    // The API is back, but the first requests still fail.
    testBed.kube.faults.failNext(3, 500);
    const served = await eventually(async () => {
      const late = await pod.ask();
      assert.equal(late.status, 200, `the agent still answers ${late.status}`);
      return late;
    }, recoveryMs);
    assertToken(served, 'start-a');
    await testBed.agent.untilReady();
    assertUpstream(testBed, ['start-a']);
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return '503 with Retry-After: 1 during the outage, /readyz names the watches, then served';
  },
};

const awayLater: Scenario = {
  name: 'api-away-later',
  title: 'While the Kubernetes API is away, known pods are served; changes arrive when it is back.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('later-a', 'later-a');
    const pod = await testBed.addPod({ name: 'known', binding: 'later-a' });
    assertToken(await pod.ask(), 'later-a');
    takeAway(testBed);
    const late = await testBed.addPod({ name: 'late', binding: 'later-a' });
    for (let turn = 0; turn < 5; turn += 1) {
      const reply = await pod.ask({ resource: `https://vault-${turn}.example` });
      assertToken(reply, 'later-a');
    }
    const unknown = await late.ask();
    assert.equal(unknown.status, 503);
    assert.match(String(unknown.body['error_description']), /^No running pod/);
    assert.equal((await testBed.agent.page('readyz'))?.status, 200);
    assert.equal(testBed.upstreamTokens().length, 6);
    bringBack(testBed);
    await eventually(async () => {
      assertToken(await late.ask(), 'later-a');
    }, recoveryMs);
    testBed.deletePodObject(pod);
    await eventually(async () => {
      assert.equal((await pod.ask()).status, 503, 'a deleted pod is still served');
    });
    // The late pod's token was already cached.
    assert.equal(testBed.upstreamTokens().length, 6);
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return 'six tokens fetched without the API; afterwards the late pod served, the deleted one refused';
  },
};

const rightsRunOut: Scenario = {
  name: 'rights-run-out',
  title:
    'With the Kubernetes API away for longer than --rights-staleness-limit, tokens end, cached ones too, and instance metadata does not; a binding deleted meanwhile never counts again.',
  needs: 'any',
  inTour: false,
  agentFlags: ['--rights-staleness-limit=10s'],
  // Objects that were just created could still be followed by others.
  objectAgeMs: 3_600_000,
  run: async (testBed) => {
    testBed.bind('runs-out', 'runs-out');
    testBed.bind('runs-on', 'runs-on');
    const pod = await testBed.addPod({ name: 'revoked', binding: 'runs-out' });
    const other = await testBed.addPod({ name: 'kept', binding: 'runs-on' });
    assertToken(await pod.ask(), 'runs-out');
    assertToken(await other.ask(), 'runs-on');
    takeAway(testBed);
    testBed.deleteObject('AzureIdentityBinding', 'runs-out');
    assertToken(await pod.ask(), 'runs-out');
    const startMs = performance.now();
    await eventually(async () => {
      const reply = await pod.ask();
      assert.equal(reply.status, 503, sayReply(reply));
    }, recoveryMs);
    const endedS = (performance.now() - startMs) / 1_000;
    for (const each of [pod, other]) {
      // The watches grow old one after the other.
      const says = /rights are not proven current: pods for 1\d s.*bindings for 1\d s.*Retry/;
      await eventually(async () => {
        assertRefused(await each.ask(), { status: 503, retryAfterS: 1, says });
      }, recoveryMs);
    }
    const instance = await other.ask({ target: '/metadata/instance?api-version=2021-02-01' });
    assert.equal(instance.status, 200, sayReply(instance));
    const missing = await readMissing(testBed);
    assert.match(String(missing['rights_current']), /pods for 1\d s.*bindings for 1\d s/);
    bringBack(testBed);
    await eventually(async () => {
      assertToken(await other.ask(), 'runs-on');
    }, recoveryMs);
    assertRefused(await pod.ask(), { status: 400, says: /runs-out/ });
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `tokens ended ${endedS.toFixed(1)} s after the API, instance metadata did not; the deleted binding stayed without effect`;
  },
};

export const kubeOutageScenarios: readonly Scenario[] = [awayAtStart, awayLater, rightsRunOut];

/** Connections are accepted but requests get no answer, as behind a dead load balancer. */
function takeAway(testBed: TestBed): void {
  testBed.log('kubernetes: the API hangs');
  testBed.kube.faults.hang = true;
  testBed.kube.cutConnections();
}

function bringBack(testBed: TestBed): void {
  testBed.log('kubernetes: the API is back');
  testBed.kube.faults.hang = false;
  testBed.kube.cutConnections();
}

async function readMissing(testBed: TestBed): Promise<Readonly<Record<string, unknown>>> {
  const page = await testBed.agent.page('readyz');
  assert.equal(page?.status, 503);
  const missing = parseRecord(page?.text ?? '')?.['missing'];
  assert.ok(typeof missing === 'object' && missing !== null);
  return { ...missing };
}
