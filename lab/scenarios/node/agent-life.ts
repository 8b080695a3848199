/** The agent dies, stops and comes back while pods ask. */
import assert from 'node:assert/strict';
import { eventually } from '../../world/eventually.ts';
import { absentAgent, beside, judgeLoad, longestGapMs } from '../../pods/load-verdict.ts';
import { hasRedirect, readNode } from '../../world/node-view.ts';
import { assertToken } from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

const killed: Scenario = {
  name: 'agent-killed',
  title: 'The agent is killed under load: connections refused until the restart, no leak.',
  needs: 'any',
  inTour: true,
  run: async (world) => {
    world.bind('kill-a', 'kill-a');
    world.bind('kill-b', 'kill-b');
    const one = await world.addPod({ name: 'one', binding: 'kill-a' });
    const two = await world.addPod({ name: 'two', binding: 'kill-b' });
    const durationMs = 3_000;
    const loads = beside(
      Promise.all([
        one.load({ durationMs }),
        two.load({ durationMs, newConnectionPerRequest: false }),
      ]),
    );
    await untilServed(world, 200);
    assert.equal(await world.agent.kill(), 'SIGKILL');
    const gone = await one.ask();
    assert.equal(gone.failure, 'ECONNREFUSED');
    await world.startAgent();
    assertToken(await one.ask(), 'kill-a');
    assertToken(await two.ask(), 'kill-b');
    const [first, second] = await loads;
    const verdicts = [
      judgeLoad(one.name, [first], 'kill-a', absentAgent),
      judgeLoad(two.name, [second], 'kill-b', absentAgent),
    ];
    for (const { granted, refused } of verdicts) assert.ok(granted > 0 && refused > 0);
    assert.deepEqual(world.uncheckedRequests(), [], 'requests came past the agent');
    const { nodeIp } = world.ground;
    // Each life of the agent fetches each identity's token once.
    const upstream = [`kill-a to ${nodeIp}`, `kill-b to ${nodeIp}`];
    assert.deepEqual(world.upstreamTokens().toSorted(), [...upstream, ...upstream].toSorted());
    const gapMs = longestGapMs([first, second]);
    const refused = verdicts.reduce((sum, verdict) => sum + verdict.refused, 0);
    return `${gapMs} ms without an answer, ${refused} requests refused in it, none leaked`;
  },
};

const imdsDelayMs = 700;
/** The agent asks upstream four at a time. */
const slowRequests = 4;

const stopped: Scenario = {
  name: 'agent-stopped',
  title: 'The agent is stopped under load: requests in flight finish, the redirect stays.',
  needs: 'any',
  inTour: true,
  run: async (world) => {
    world.bind('stop-a', 'stop-a');
    world.bind('stop-b', 'stop-b');
    const one = await world.addPod({ name: 'one', binding: 'stop-a' });
    const two = await world.addPod({ name: 'two', binding: 'stop-b' });
    assertToken(await one.ask(), 'stop-a');
    assertToken(await two.ask(), 'stop-b');
    const durationMs = 3_000;
    const loads = beside(
      Promise.all([
        one.load({ durationMs }),
        two.load({ durationMs, newConnectionPerRequest: false }),
      ]),
    );
    await untilServed(world, 200);
    await world.imds.setFaults({ delayMs: imdsDelayMs, paths: 'token' });
    const slow = beside(
      Promise.all(
        Array.from({ length: slowRequests }, (_, index) =>
          one.ask({ resource: `https://slow-${index}.example` }),
        ),
      ),
    );
    await eventually(() => {
      const open = world.imds.requests().filter(({ status }) => status === undefined);
      assert.equal(open.length, slowRequests, 'not all requests are under way upstream');
    });
    const code = await world.agent.stop();
    assert.equal(code, 0, `the agent ended with ${code ?? 'nothing'}`);
    for (const reply of await slow) {
      assert.equal(
        reply.identity,
        'stop-a',
        `a request under way got ${reply.failure ?? reply.text}`,
      );
    }
    if (world.ground.kind === 'namespaces') assert.ok(hasRedirect(await readNode(world)));
    const gone = await one.ask();
    assert.equal(gone.failure, 'ECONNREFUSED');
    await world.imds.setFaults({});
    await world.startAgent();
    assertToken(await one.ask(), 'stop-a');
    const [first, second] = await loads;
    const verdicts = [
      judgeLoad(one.name, [first], 'stop-a', absentAgent),
      judgeLoad(two.name, [second], 'stop-b', absentAgent),
    ];
    for (const { granted, refused } of verdicts) assert.ok(granted > 0 && refused > 0);
    assert.deepEqual(world.uncheckedRequests(), [], 'requests came past the agent');
    for (const who of world.upstreamTokens()) {
      assert.match(who, new RegExp(`^stop-[ab] to ${world.ground.nodeIp}$`));
    }
    const gapMs = longestGapMs([first, second]);
    return (
      `${slowRequests} requests under way finished, exit code 0, refused while down, longest gap ` +
      `${gapMs} ms`
    );
  },
};

export const agentLifeScenarios: readonly Scenario[] = [killed, stopped];

/** Until so many token requests were granted by the agent that runs now. */
async function untilServed(world: World, count: number): Promise<void> {
  const series = 'nmi_requests_total{route="token",reason="ok"}';
  const wanted = (await world.agent.metric(series)) + count;
  await eventually(async () => {
    const served = await world.agent.metric(series);
    assert.ok(served >= wanted, `the agent served ${served} requests only`);
  });
}
