/** The next pod of the agent takes the listening socket over while the one before still answers. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { AgentProcess } from '../../world/agent-process.ts';
import { eventually } from '../../world/eventually.ts';
import { judgeLoad, longestGapMs } from '../../pods/load-verdict.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import { makeBare, runRedirect, succeed, variableOf } from '../../world/node-view.ts';
import { untilToken } from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';
import {
  kernelFlags,
  kernelRights,
  openKernelSide,
  openServingSide,
  servingFlags,
} from './split-agent.ts';

const updates = 5;
const minRequests = 4_000;
const slowMs = 300;

interface AgentPod {
  readonly kernel: AgentProcess;
  readonly serving: AgentProcess;
}

const handover: Scenario = {
  name: 'agent-handover',
  title:
    'The agent is updated under load, the new pod beside the old one, with a slow IMDS: no request fails.',
  needs: 'namespaces',
  inTour: false,
  run: async (world) => {
    world.bind('surge', 'surge');
    const fresh = await world.addPod({ name: 'fresh', binding: 'surge' });
    const kept = await world.addPod({ name: 'kept', binding: 'surge' });
    await makeBare(world);
    await using agents = new AsyncDisposableStack();
    let pod = await startPod(world, agents, 0);
    await untilToken(fresh, 'surge');
    await untilToken(kept, 'surge');
    const loads = [
      startSteadyLoad(fresh, { concurrency: 2 }),
      startSteadyLoad(kept, { concurrency: 2, newConnectionPerRequest: false }),
    ];
    for (let update = 1; update <= updates; update++) {
      const next = await startPod(world, agents, update);
      // From here on each new agent has fetched the token before the old one goes.
      await world.imds.setFaults({ delayMs: slowMs });
      assert.deepEqual(await Promise.all([pod.serving.stop(), pod.kernel.stop()]), [0, 0]);
      pod = next;
      await pod.kernel.untilReady();
      await pod.serving.untilReady();
      const verified = await runRedirect(world, 'verify');
      assert.ok(verified.code === 0 || world.attests, verified.stdout);
      await world.imds.setFaults({});
    }
    const reports = [await loads[0]?.stop(), await loads[1]?.stop()];
    const [first = [], second = []] = reports;
    const granted =
      judgeLoad(fresh.name, first, 'surge').granted + judgeLoad(kept.name, second, 'surge').granted;
    assert.ok(granted >= minRequests, `${granted} requests only`);
    assert.deepEqual(world.uncheckedRequests(), []);
    const gapMs = longestGapMs([...first, ...second]);
    return `${updates} updates, ${granted} requests, 0 failed, the longest ${gapMs} ms without an answer`;
  },
};

export const agentHandoverScenarios: readonly Scenario[] = [handover];

/** A pod of the agent; for the first one the ports are free, every other one waits for them. */
async function startPod(
  world: World,
  agents: AsyncDisposableStack,
  number: number,
): Promise<AgentPod> {
  const uid = randomUUID();
  const folder = join(variableOf(world, 'NMI_CALLER_SOCKET'), '..');
  const place = join(folder, `pod-${number}`);
  await succeed(world, 'mkdir', '-p', join(folder, 'holders'), place);
  const variables = [
    `NMI_CALLER_SOCKET=${join(place, 'callers.sock')}`,
    `NMI_HANDOVER_SOCKET=${join(folder, 'holders', 'handover.sock')}`,
    'NMI_EXPLAIN_SOCKET=off',
  ];
  const kernel = agents.use(await openKernelSide(world, uid, kernelRights(world), variables));
  const serving = agents.use(await openServingSide(world, uid, variables));
  kernel.launch(kernelFlags(world));
  serving.launch(servingFlags(world));
  // The ports of the pages are those of the agent before.
  const synced = /"msg":"all watches synced"/;
  await eventually(() => {
    const { lines, isRunning } = serving;
    assert.ok(isRunning, lines.slice(-5).join('\n'));
    assert.ok(
      lines.some((line) => synced.test(line)),
      [...kernel.lines.slice(-6), '---', ...lines.slice(-6)].join('\n'),
    );
  }, 20_000);
  return { kernel, serving };
}
