/**
 * The agent's new pod takes over the listening socket while the old one still answers. Between two
 * updates, one is undone: its pod ends, and the old one serves on. Before all, one of which only the
 * kernel's side runs is undone: a pod that is not ready beside a new one is deleted, so the old one stays ready.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentProcess } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { checkLoad, longestGapMs } from '../../pods/load-verdict.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import { makeBare, runRedirect, succeed, variableOf } from '../../test-bed/node-view.ts';
import { untilToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import {
  kernelFlags,
  kernelRights,
  openKernelSide,
  openServingSide,
  servingFlags,
} from './split-agent.ts';

const updates = 3;
const minRequests = 2_000;
/** Several checks of the redirect, which has another pod exempt meanwhile. */
const neverReadyMs = 5_000;
/** In turn, while the old pod stops. */
const faults = [{ delayMs: 300 }, { closed: true }] as const;

interface AgentPod {
  readonly kernel: AgentProcess;
  readonly serving: AgentProcess;
}

const handover: Scenario = {
  name: 'agent-handover',
  title:
    'The agent is updated under load, the new pod beside the old one, with a slow or absent IMDS, and updates are undone, one whose agent cannot start: no request fails.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('surge', 'surge');
    const fresh = await testBed.addPod({ name: 'fresh', binding: 'surge' });
    const kept = await testBed.addPod({ name: 'kept', binding: 'surge' });
    await makeBare(testBed);
    await using agents = new AsyncDisposableStack();
    let pod = await startPod(testBed, agents, 'pod-0');
    await untilToken(fresh, 'surge');
    await untilToken(kept, 'surge');
    const loads = [
      startSteadyLoad(fresh, { concurrency: 2 }),
      startSteadyLoad(kept, { concurrency: 2, newConnectionPerRequest: false }),
    ];
    await undoNeverReady(testBed, agents, pod);
    for (let update = 1; update <= updates; update++) {
      const undone = await startPod(testBed, agents, `undone-${update}`);
      await stopPod(undone);
      const next = await startPod(testBed, agents, `pod-${update}`);
      // Both agents accept connections, so the new one fetches the token before the old one stops.
      await eventually(() => {
        assert.ok(next.serving.lines.some((line) => line.includes('"status":200')));
      });
      await testBed.imds.setFaults(faults[update % faults.length] ?? {});
      await stopPod(pod);
      pod = next;
      await pod.kernel.untilReady();
      await pod.serving.untilReady();
      const verified = await runRedirect(testBed, 'verify');
      assert.ok(verified.code === 0 || testBed.attests, verified.stdout);
      await testBed.imds.setFaults({});
    }
    const reports = [await loads[0]?.stop(), await loads[1]?.stop()];
    const [first = [], second = []] = reports;
    const granted =
      checkLoad(fresh.name, first, 'surge').granted + checkLoad(kept.name, second, 'surge').granted;
    assert.ok(granted >= minRequests, `only ${granted} requests`);
    assert.deepEqual(testBed.uncheckedRequests(), []);
    const gapMs = longestGapMs([...first, ...second]);
    return `${updates} updates, each after an undone one, ${granted} requests, 0 failed, the longest ${gapMs} ms without an answer`;
  },
};

export const agentHandoverScenarios: readonly Scenario[] = [handover];

async function stopPod({ serving, kernel }: AgentPod): Promise<void> {
  assert.deepEqual(await Promise.all([serving.stop(), kernel.stop()]), [0, 0]);
}

/** The old pod stays ready beside one whose serving side cannot start, and when that one ends. */
async function undoNeverReady(
  testBed: TestBed,
  agents: AsyncDisposableStack,
  old: AgentPod,
): Promise<void> {
  const watch = new AbortController();
  const unready: string[] = [];
  const watching = [old.kernel, old.serving].map(async (side) => {
    while (!watch.signal.aborted) {
      const page = await side.page('readyz');
      if (page?.status !== 200) unready.push(page?.text ?? 'no answer');
      await delay(50);
    }
  });
  const kernel = await startKernelSide(testBed, agents, randomUUID(), 'never-ready');
  await delay(neverReadyMs);
  assert.ok(kernel.isRunning, kernel.lines.slice(-5).join('\n'));
  assert.equal(await kernel.stop(), 0);
  await delay(neverReadyMs / 2);
  watch.abort();
  await Promise.all(watching);
  assert.deepEqual([...new Set(unready)], []);
}

/** A pod of the agent; the first one finds its ports free, the others wait for them. */
async function startPod(
  testBed: TestBed,
  agents: AsyncDisposableStack,
  name: string,
): Promise<AgentPod> {
  const uid = randomUUID();
  const kernel = await startKernelSide(testBed, agents, uid, name);
  const variables = await variablesOf(testBed, name);
  const serving = agents.use(await openServingSide(testBed, uid, variables));
  serving.launch(servingFlags(testBed));
  // The pages' ports still belong to the previous agent.
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

async function startKernelSide(
  testBed: TestBed,
  agents: AsyncDisposableStack,
  uid: string,
  name: string,
): Promise<AgentProcess> {
  const variables = await variablesOf(testBed, name);
  const kernel = agents.use(await openKernelSide(testBed, uid, kernelRights(testBed), variables));
  kernel.launch(kernelFlags(testBed));
  return kernel;
}

async function variablesOf(testBed: TestBed, name: string): Promise<readonly string[]> {
  const folder = join(variableOf(testBed, 'NMI_CALLER_SOCKET'), '..');
  const place = join(folder, name);
  await succeed(testBed, 'mkdir', '-p', join(folder, 'holders'), place);
  return [
    `NMI_CALLER_SOCKET=${join(place, 'callers.sock')}`,
    `NMI_HANDOVER_SOCKET=${join(folder, 'holders', 'handover.sock')}`,
    'NMI_EXPLAIN_SOCKET=off',
  ];
}
