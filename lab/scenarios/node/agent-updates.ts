/**
 * A pod of the agent is replaced by the next one, which runs beside it until it is ready, while pods send requests;
 * and either container is killed. `NMI_LAB_UPDATES` sets the number of updates and of kills. With the path of an
 * executable of another release in `NMI_LAB_OTHER_RELEASE`, half of the pods have that.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentProcess } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { absentAgent, checkLoad, longestGapMs } from '../../pods/load-verdict.ts';
import { startSteadyLoad, type SteadyLoad } from '../../pods/steady-load.ts';
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

const givenUpdates = Number(process.env['NMI_LAB_UPDATES']);
const updates = givenUpdates > 0 ? givenUpdates : 4;
const otherRelease = process.env['NMI_LAB_OTHER_RELEASE'];
const mostUndoneMs = 6_000;
/** In turn, while the old pod stops. */
const faults = [{ delayMs: 300 }, { closed: true }, {}] as const;
/** Several checks of the redirect. */
const neverReadyMs = 3_000;
/** Of the pods together, with a pause of each worker between two requests: about 500 a second. */
const pace = { concurrency: 5, pauseMs: 15 };
const minRequestsPerUpdate = 200;
/** In the middle of all starts: 0.2 s alone, and 1.0 s beside a whole run of the tests (December 2026). */
const servedWithinMs = 3_000;

interface AgentPod {
  readonly name: string;
  readonly uid: string;
  readonly kernel: AgentProcess;
  readonly serving: AgentProcess;
}

type Kind = 'usual' | 'undone' | 'never ready';

/** A quarter of all is undone at some moment, a quarter never gets ready. */
function kindOf(update: number): Kind {
  return (['undone', 'never ready', 'usual', 'usual'] as const)[update % 4] ?? 'usual';
}

const updated: Scenario = {
  name: 'agent-updates',
  title:
    'The agent is updated under load, the new pod beside the old one, with a slow or absent IMDS. Updates are undone at any moment, and agents never get ready: no request fails.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    await using fleet = await openFleet(testBed);
    const loads = startLoads(fleet);
    let pod = await fleet.start('usual');
    await untilServed(fleet, pod);
    await loads.begin();
    for (let update = 0; update < updates; update += 1) {
      const kind = kindOf(update);
      const next = await fleet.start(kind);
      if (kind === 'usual') {
        await untilTakenOver(next);
        await testBed.imds.setFaults(faults[update % faults.length] ?? {});
        await stopPod(pod);
        pod = next;
        await pod.kernel.untilReady();
        await pod.serving.untilReady();
        await testBed.imds.setFaults({});
      } else {
        const watch = watchReadiness(pod);
        await delay(kind === 'undone' ? Math.random() * mostUndoneMs : neverReadyMs);
        await stopPod(next);
        await delay(300);
        assert.deepEqual(await watch.stop(), [], `the pod before was not ready: ${kind}`);
      }
    }
    const { granted, gapMs } = await loads.end([]);
    assert.ok(granted >= updates * minRequestsPerUpdate, `only ${granted} requests`);
    await eventually(async () => {
      const verified = await runRedirect(testBed, 'verify');
      assert.ok(verified.code === 0 || testBed.attests, verified.stdout);
    });
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `${updates} updates, ${granted} requests, 0 failed, the longest ${gapMs} ms without an answer`;
  },
};

const killed: Scenario = {
  name: 'containers-killed',
  title:
    'Either container of the agent is killed under load and starts again. While `redirect` is down, no request fails; while `nmi` is, the node is closed, and served within a second of the start.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    await using fleet = await openFleet(testBed);
    const pod = await fleet.start('usual');
    await untilServed(fleet, pod);
    const ofKernel = startLoads(fleet);
    await ofKernel.begin();
    for (let kill = 0; kill < updates; kill += 1) {
      await pod.kernel.kill();
      pod.kernel.launch(kernelFlags(testBed));
      await pod.kernel.untilReady();
    }
    const { granted, gapMs } = await ofKernel.end([]);
    const ofServing = startLoads(fleet);
    await ofServing.begin();
    const servedMs: number[] = [];
    for (let kill = 0; kill < updates; kill += 1) {
      await pod.serving.kill();
      pod.serving.launch(servingFlags(testBed));
      const startedMs = performance.now();
      await untilToken(fleet.fresh, 'surge');
      servedMs.push(performance.now() - startedMs);
    }
    const refused = await ofServing.end([...absentAgent, '503']);
    assert.deepEqual(testBed.uncheckedRequests(), [], 'requests came past the agent');
    const sorted = servedMs.toSorted((one, other) => one - other);
    const medianMs = Math.round(sorted[Math.floor(sorted.length / 2)] ?? 0);
    const longestMs = Math.round(sorted.at(-1) ?? 0);
    assert.ok(
      medianMs <= servedWithinMs,
      `served ${medianMs} ms after a start, at most ${longestMs} ms`,
    );
    return `the redirect's container killed ${updates} times: ${granted} requests, 0 failed, the longest ${gapMs} ms without an answer; the agent's killed ${updates} times: served ${medianMs} ms after its start, at most ${longestMs} ms, ${refused.granted} tokens, ${refused.refused} refused, none leaked`;
  },
};

export const agentUpdateScenarios: readonly Scenario[] = [updated, killed];

async function stopPod({ serving, kernel }: AgentPod): Promise<void> {
  await Promise.all([serving.stop(), kernel.stop()]);
}

/** Which pages were not ready. */
function watchReadiness(pod: AgentPod): { stop(): Promise<readonly string[]> } {
  const watch = new AbortController();
  const unready = new Set<string>();
  const watching = [pod.kernel, pod.serving].map(async (side) => {
    while (!watch.signal.aborted) {
      const page = await side.page('readyz');
      if (page?.status !== 200) unready.add(page?.text ?? 'no answer');
      await delay(50);
    }
  });
  return {
    stop: async () => {
      watch.abort();
      await Promise.all(watching);
      return [...unready];
    },
  };
}

interface Fleet extends AsyncDisposable {
  readonly fresh: Awaited<ReturnType<TestBed['addPod']>>;
  readonly kept: Awaited<ReturnType<TestBed['addPod']>>;
  start(kind: Kind): Promise<AgentPod>;
}

async function openFleet(testBed: TestBed): Promise<Fleet> {
  testBed.bind('surge', 'surge');
  const fresh = await testBed.addPod({ name: 'fresh', binding: 'surge' });
  const kept = await testBed.addPod({ name: 'kept', binding: 'surge' });
  await makeBare(testBed);
  const agents = new AsyncDisposableStack();
  let made = 0;
  return {
    fresh,
    kept,
    start: async (kind) => {
      const name = `pod-${(made += 1)}`;
      const uid = randomUUID();
      const variables = await variablesOf(testBed, name);
      // Each kind of update follows each release, and each brings each.
      const built = made % 3 === 0 ? otherRelease : undefined;
      const kernel = agents.use(
        await openKernelSide(testBed, uid, kernelRights(testBed), variables, built),
      );
      kernel.launch(kernelFlags(testBed));
      const serving = agents.use(await openServingSide(testBed, uid, variables, built));
      // Nobody answers at that port: its watches never list anything.
      const silent = ['--kubeconfig', await silentKubeconfig(testBed)];
      serving.launch([...servingFlags(testBed), ...(kind === 'never ready' ? silent : [])]);
      return { name, uid, kernel, serving };
    },
    [Symbol.asyncDispose]: () => agents.disposeAsync(),
  };
}

async function silentKubeconfig(testBed: TestBed): Promise<string> {
  const path = join(variableOf(testBed, 'NMI_SHARED_FOLDER'), 'silent-kubeconfig');
  const server = 'https://192.0.2.1:6443';
  await succeed(
    testBed,
    'sh',
    '-c',
    `printf '%s' '{"apiVersion":"v1","kind":"Config","current-context":"a","clusters":[{"name":"a","cluster":{"server":"${server}"}}],"users":[{"name":"a","user":{"token":"a"}}],"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}]}' > ${path}`,
  );
  return path;
}

async function untilServed(fleet: Fleet, pod: AgentPod): Promise<void> {
  await pod.kernel.untilReady();
  await pod.serving.untilReady();
  await untilToken(fleet.fresh, 'surge');
  await untilToken(fleet.kept, 'surge');
}

/** The pages' ports still belong to the pod before. */
async function untilTakenOver({ kernel, serving }: AgentPod): Promise<void> {
  await eventually(() => {
    const said = [...kernel.lines.slice(-6), '---', ...serving.lines.slice(-6)].join('\n');
    assert.ok(serving.isRunning, said);
    assert.ok(
      kernel.lines.some((line) => line.includes('points at another agent now')),
      said,
    );
  }, 20_000);
}

interface Loads {
  begin(): Promise<void>;
  end(others: readonly string[]): Promise<{ granted: number; refused: number; gapMs: number }>;
}

/** Half of the requests on new connections. */
function startLoads({ fresh, kept }: Fleet): Loads {
  let running: readonly [SteadyLoad, SteadyLoad] | undefined;
  return {
    begin: async () => {
      running = [
        startSteadyLoad(fresh, pace),
        startSteadyLoad(kept, { ...pace, newConnectionPerRequest: false }),
      ];
      await delay(500);
    },
    end: async (others) => {
      if (running === undefined) return { granted: 0, refused: 0, gapMs: 0 };
      const [first, second] = await Promise.all(running.map((load) => load.stop()));
      const verdicts = [
        checkLoad(fresh.name, first ?? [], 'surge', others),
        checkLoad(kept.name, second ?? [], 'surge', others),
      ];
      return {
        granted: verdicts.reduce((sum, { granted }) => sum + granted, 0),
        refused: verdicts.reduce((sum, { refused }) => sum + refused, 0),
        gapMs: longestGapMs([...(first ?? []), ...(second ?? [])]),
      };
    },
  };
}

async function variablesOf(testBed: TestBed, name: string): Promise<readonly string[]> {
  const folder = variableOf(testBed, 'NMI_SHARED_FOLDER');
  const place = join(folder, name);
  await succeed(testBed, 'mkdir', '-p', '-m', '777', place);
  await succeed(testBed, 'mkdir', '-p', '-m', '700', join(folder, 'slots'));
  return [
    `NMI_SHARED_FOLDER=${place}`,
    `NMI_SLOT_FOLDER=${join(folder, 'slots')}`,
    'NMI_EXPLAIN_SOCKET=off',
  ];
}
