/** The agent crashes, stops and restarts while pods send requests. */
import assert from 'node:assert/strict';
import { metricsLimitMs } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { absentAgent, beside, checkLoad } from '../../pods/load-verdict.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import { hasRedirect, readNode } from '../../test-bed/node-view.ts';
import { assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const killed: Scenario = {
  name: 'agent-killed',
  title: 'The agent is killed under load: connections refused until the restart, no leak.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    testBed.bind('kill-a', 'kill-a');
    testBed.bind('kill-b', 'kill-b');
    const one = await testBed.addPod({ name: 'one', binding: 'kill-a' });
    const two = await testBed.addPod({ name: 'two', binding: 'kill-b' });
    const load = startSteadyLoad(one);
    const keptLoad = startSteadyLoad(two, { newConnectionPerRequest: false });
    await untilServed(testBed, 200);
    assert.equal(await testBed.agent.kill(), 'SIGKILL');
    const goneAtMs = performance.now();
    for (const pod of [one, two]) assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
    await testBed.startAgent();
    assertToken(await one.ask(), 'kill-a');
    const gapMs = Math.round(performance.now() - goneAtMs);
    assertToken(await two.ask(), 'kill-b');
    const [first, second] = [await load.stop(), await keptLoad.stop()];
    const verdicts = [
      checkLoad(one.name, first, 'kill-a', absentAgent),
      checkLoad(two.name, second, 'kill-b', absentAgent),
    ];
    for (const { granted, refused } of verdicts) assert.ok(granted > 0 && refused > 0);
    assert.deepEqual(testBed.uncheckedRequests(), [], 'requests came past the agent');
    const { nodeIp } = testBed.environment;
    // Each agent process fetches each identity's token once.
    const upstream = [`kill-a to ${nodeIp}`, `kill-b to ${nodeIp}`];
    assert.deepEqual(testBed.upstreamTokens().toSorted(), [...upstream, ...upstream].toSorted());
    const refused = verdicts.reduce((sum, verdict) => sum + verdict.refused, 0);
    return `${gapMs} ms without the agent, ${refused} requests refused meanwhile, none leaked`;
  },
};

const imdsDelayMs = 700;
/** The agent sends at most four requests upstream at a time. */
const slowRequests = 4;

const stopped: Scenario = {
  name: 'agent-stopped',
  title: 'The agent is stopped under load: requests in flight finish, the redirect stays.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    testBed.bind('stop-a', 'stop-a');
    testBed.bind('stop-b', 'stop-b');
    const one = await testBed.addPod({ name: 'one', binding: 'stop-a' });
    const two = await testBed.addPod({ name: 'two', binding: 'stop-b' });
    assertToken(await one.ask(), 'stop-a');
    assertToken(await two.ask(), 'stop-b');
    const load = startSteadyLoad(one);
    const keptLoad = startSteadyLoad(two, { newConnectionPerRequest: false });
    await untilServed(testBed, 200);
    await testBed.imds.setFaults({ delayMs: imdsDelayMs, paths: 'token' });
    let asked = 0;
    const askSlowly = () =>
      Promise.all(
        // Of both pods: one alone may not use all calls.
        Array.from({ length: slowRequests }, (_, index) =>
          (index % 2 === 0 ? one : two).ask({ resource: `https://slow-${asked++}.example` }),
        ),
      );
    let waiting: ReturnType<typeof askSlowly> | undefined;
    // If the machine stands still, the first is answered before the last is in flight: then others.
    const { replies } = await eventually(() => {
      const slow = (waiting ??= beside(askSlowly().finally(() => (waiting = undefined))));
      const open = testBed.imds.requests().filter(({ status }) => status === undefined);
      assert.equal(open.length, slowRequests, 'not all requests are in flight upstream');
      return { replies: slow };
    });
    const code = await testBed.agent.stop();
    assert.equal(code, 0, `the agent exited with ${code ?? 'no code'}`);
    for (const [index, reply] of (await replies).entries()) {
      assert.equal(
        reply.identity,
        index % 2 === 0 ? 'stop-a' : 'stop-b',
        `a request in flight got ${reply.failure ?? reply.text}`,
      );
    }
    if (testBed.environment.kind === 'namespaces') assert.ok(hasRedirect(await readNode(testBed)));
    const goneAtMs = performance.now();
    for (const pod of [one, two]) assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
    await testBed.imds.setFaults({});
    await testBed.startAgent();
    assertToken(await one.ask(), 'stop-a');
    const gapMs = Math.round(performance.now() - goneAtMs);
    const [first, second] = [await load.stop(), await keptLoad.stop()];
    const verdicts = [
      checkLoad(one.name, first, 'stop-a', absentAgent),
      checkLoad(two.name, second, 'stop-b', absentAgent),
    ];
    for (const { granted, refused } of verdicts) assert.ok(granted > 0 && refused > 0);
    assert.deepEqual(testBed.uncheckedRequests(), [], 'requests came past the agent');
    for (const who of testBed.upstreamTokens()) {
      assert.match(who, new RegExp(`^stop-[ab] to ${testBed.environment.nodeIp}$`));
    }
    return (
      `${slowRequests} requests in flight finished, exit code 0, refused while down for ` +
      `${gapMs} ms`
    );
  },
};

export const agentLifeScenarios: readonly Scenario[] = [killed, stopped];

/** Waits until the running agent has granted this many token requests. */
async function untilServed(testBed: TestBed, count: number): Promise<void> {
  const series = 'nmi_requests_total{route="token",reason="ok"}';
  const wanted = (await testBed.agent.metric(series)) + count;
  await eventually(async () => {
    const served = await testBed.agent.metric(series);
    assert.ok(served >= wanted, `the agent served only ${served} requests`);
  }, metricsLimitMs);
}
