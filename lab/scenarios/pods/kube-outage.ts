/** The Kubernetes API is away: at the start, and later. */
import assert from 'node:assert/strict';
import { parseRecord } from '../../../src/nmi/base/json-value.ts';
import { eventually } from '../../world/eventually.ts';
import { assertToken, assertUpstream } from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

/** Longer than this the reflector would not wait between two tries after a short outage. */
const recoveryMs = 15_000;

const awayAtStart: Scenario = {
  name: 'api-away-at-start',
  title:
    'Without the Kubernetes API at start, pods get 503 with Retry-After; when it is back, they are served.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    world.bind('start-a', 'start-a');
    const pod = await world.addPod({ name: 'app', binding: 'start-a' });
    await world.agent.stop();
    takeAway(world);
    world.launchAgent();
    await eventually(async () => {
      assert.equal((await world.agent.page('livez'))?.status, 200, 'the agent does not live');
    });
    const reply = await pod.ask();
    assert.equal(reply.status, 503);
    assert.match(String(reply.body['error_description']), /^The agent is starting/);
    assert.equal(reply.headers.get('retry-after'), '1');
    const missing = await readMissing(world);
    assert.deepEqual(Object.keys(missing), ['watches']);
    for (const word of ['pods', 'identities', 'bindings', 'exceptions']) {
      assert.ok(String(missing['watches']).includes(word), `/readyz does not name ${word}`);
    }
    assert.equal((await world.agent.page('healthz'))?.text, 'Active');
    assert.equal((await world.agent.page('livez'))?.status, 200);
    assert.deepEqual(world.imds.requests(), [], 'an unknown pod made the agent ask upstream');
    bringBack(world);
    // Back, but not at its best: the first requests fail.
    world.kube.faults.failNext(3, 500);
    const served = await eventually(async () => {
      const late = await pod.ask();
      assert.equal(late.status, 200, `the agent still answers ${late.status}`);
      return late;
    }, recoveryMs);
    assertToken(served, 'start-a');
    await world.agent.untilReady();
    assertUpstream(world, ['start-a']);
    assert.deepEqual(world.uncheckedRequests(), []);
    return '503 with Retry-After: 1 while it is away, /readyz names the watches, then served';
  },
};

const awayLater: Scenario = {
  name: 'api-away-later',
  title: 'While the Kubernetes API is away, known pods are served; changes arrive when it is back.',
  needs: 'any',
  inTour: false,
  run: async (world) => {
    world.bind('later-a', 'later-a');
    const pod = await world.addPod({ name: 'known', binding: 'later-a' });
    assertToken(await pod.ask(), 'later-a');
    takeAway(world);
    const late = await world.addPod({ name: 'late', binding: 'later-a' });
    for (let turn = 0; turn < 5; turn += 1) {
      const reply = await pod.ask({ resource: `https://vault-${turn}.example` });
      assertToken(reply, 'later-a');
    }
    const unknown = await late.ask();
    assert.equal(unknown.status, 503);
    assert.match(String(unknown.body['error_description']), /^No running pod/);
    assert.equal((await world.agent.page('readyz'))?.status, 200);
    assert.equal(world.upstreamTokens().length, 6);
    bringBack(world);
    await eventually(async () => {
      assertToken(await late.ask(), 'later-a');
    }, recoveryMs);
    world.deletePodObject(pod);
    await eventually(async () => {
      assert.equal((await pod.ask()).status, 503, 'a deleted pod is still served');
    });
    // The late pod's token was in the cache.
    assert.equal(world.upstreamTokens().length, 6);
    assert.deepEqual(world.uncheckedRequests(), []);
    return 'six tokens fetched without the API, the late pod served and the deleted one refused after';
  },
};

export const kubeOutageScenarios: readonly Scenario[] = [awayAtStart, awayLater];

/** Connections are taken and nothing is answered, as behind a dead load balancer. */
function takeAway(world: World): void {
  world.tell('kubernetes: the API hangs');
  world.kube.faults.hang = true;
  world.kube.cutConnections();
}

function bringBack(world: World): void {
  world.tell('kubernetes: the API is back');
  world.kube.faults.hang = false;
  world.kube.cutConnections();
}

async function readMissing(world: World): Promise<Readonly<Record<string, unknown>>> {
  const page = await world.agent.page('readyz');
  assert.equal(page?.status, 503);
  const missing = parseRecord(page?.text ?? '')?.['missing'];
  assert.ok(typeof missing === 'object' && missing !== null);
  return { ...missing };
}
