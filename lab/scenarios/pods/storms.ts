/**
 * One pod storms: what another pod, and the kubelet, notice of it. Each is measured beside a pod that only
 * burns as much processor time, in turn.
 */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { beside, checkLoad } from '../../pods/load-verdict.ts';
import { metadataHeader, tokenPath, tokenTarget, type LabPod } from '../../pods/pod.ts';
import type { PodAttack, PodLoad, PodLoadReport } from '../../pods/pod-protocol.ts';
import { untilToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

/** To each address of the agent. */
const connectRounds = 5;
const roundMs = 800;
/** The attack begins and ends by half of it before and after the load. */
const aroundMs = 400;
/** Of new connections of another pod: p50 beside the storm, in p50 without, and the slowest. */
const goal = { times: 5, ms: 300 };

const open = 180;
/** More than the kernel keeps for a socket that listens. */
const openLong = 3_000;
const program = fileURLToPath(new URL('../../../dist/lab/pods/connect-storm', import.meta.url));

const connectStorm: Scenario = {
  name: 'connect-storm',
  title:
    'A pod connects as fast as it can and sends nothing: new connections of others are as before.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['victim', 'stormer']) testBed.bind(name, name);
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim' });
    const stormer = await testBed.addPod({ name: 'stormer', binding: 'stormer' });
    await testBed.untilAgentKnows();
    const [idle, attacked]: [PodLoadReport[], PodLoadReport[]] = [[], []];
    let tried = 0;
    const { metadataIp, metadataPort, listenIp, listenPort } = defaultTarget;
    const durationMs = roundMs + aroundMs;
    const besideStorm = async (ip: string, port: number): Promise<PodLoadReport> => {
      const args = [ip, String(port), String(open), String(durationMs)];
      const storming = testBed.environment.runInPod(stormer.name, program, args);
      const load = await loadBeside(victim, storming);
      const { code, stdout, stderr } = await storming;
      assert.equal(code, 0, stderr);
      tried = Math.max(tried, Number(/^tried=(\d+)/.exec(stdout)?.[1]));
      testBed.log(`${ip}: slowest ${say(load.latencyMs.max)}; ${stdout.trim()}`);
      return load;
    };
    for (let round = 0; round < 2 * connectRounds; round += 1) {
      const spin = { style: 'spin', request: '', connections: 0, durationMs } as const;
      idle.push(await loadBeside(victim, stormer.client.attack(spin)));
      const to =
        round % 2 === 0 ? ([metadataIp, metadataPort] as const) : ([listenIp, listenPort] as const);
      const load = await besideStorm(...to);
      // Other programs of the machine may have come in between.
      attacked.push(load.latencyMs.max > goal.ms ? await besideStorm(...to) : load);
    }
    checkLoad(victim.name, [...idle, ...attacked], 'victim');
    const line =
      `up to ${Math.round((tried * 1000) / durationMs)} connects a second tried; p50 of others ` +
      `${say(median(attacked, 'p50'))}, ${say(median(idle, 'p50'))} beside processor time alone; slowest ${say(max(attacked))}, ${say(max(idle))}`;
    testBed.log(line);
    assert.ok(median(attacked, 'p50') <= goal.times * median(idle, 'p50'), line);
    assert.ok(max(attacked) <= Math.max(goal.ms, 2 * max(idle)), line);
    // Most connections are reset before the agent accepts them, and have no address any more.
    const request = 'GET / HTTP/1.1\r\n\r\n';
    await stormer.client.attack({ style: 'renew', request, connections: 64, durationMs });
    const metric = 'nmi_throttled_requests_total{namespace="default",limit="connection_rate"}';
    assert.ok((await testBed.agent.metric(metric)) > 0, 'the storm is not counted');
    return line;
  },
};

const get = (target: string): string =>
  `GET ${target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n`;

const busyRounds = 6;
/** p50 and p99 of another pod beside busy connections, in those beside the control, or this much. */
const busyGoal = { p50: { times: 5, ms: 20 }, p99: { times: 4, ms: 150 } };

const busyConnections: Scenario = {
  name: 'busy-connections',
  title:
    'A pod keeps 512 connections busy: answers and new connections of others come as beside other work.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['victim', 'busy']) testBed.bind(name, name);
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim' });
    const busy = await testBed.addPod({ name: 'busy', binding: 'busy' });
    await testBed.untilAgentKnows();
    await busy.ask();
    const seen: string[] = [];
    for (const newConnectionPerRequest of [false, true]) {
      const load = { newConnectionPerRequest };
      const request = get(tokenTarget({}));
      const storm = { style: 'repeat', request, connections: 512 } as const;
      const { control, stormed } = await inTurn(victim, busy, load, storm, { rounds: busyRounds });
      checkLoad(victim.name, [...control, ...stormed], 'victim');
      const what = newConnectionPerRequest ? 'new connections' : 'kept ones';
      const line = `${what}: ${describe(stormed)}, ${describe(control)} beside processor time alone`;
      testBed.log(line);
      for (const percentile of ['p50', 'p99'] as const) {
        const { times, ms } = busyGoal[percentile];
        const most = Math.max(ms, times * median(control, percentile));
        assert.ok(median(stormed, percentile) <= most, line);
      }
      seen.push(line);
    }
    return seen.join('; ');
  },
};

const missRounds = 5;
/** p50 of another pod's new tokens, in those beside the control, or this much. */
const missGoal = { times: 3, ms: 20 };

const misses: Scenario = {
  name: 'miss-storm',
  title: 'A pod asks for new tokens without end: new tokens of others come as fast as before.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['victim', 'asking']) testBed.bind(name, name);
    const victim = await testBed.addPod({ name: 'victim', binding: 'victim' });
    const asking = await testBed.addPod({ name: 'asking', binding: 'asking' });
    await testBed.untilAgentKnows();
    let turn = 0;
    /** Each request is for another resource. */
    const load = () => ({
      targets: Array.from({ length: 100 }, () => ({
        target: tokenTarget({ resource: `https://of-victim-${(turn += 1)}` }),
        headers: metadataHeader,
      })),
      pauseMs: 480,
      durationMs: 4_000,
    });
    // More new resources are refused: the pod renews the tokens of those that it may have.
    const request = get(
      `${tokenPath}?api-version=2018-02-01&bypass_cache=true&resource=https://r%M`,
    );
    const storm = { style: 'repeat', request, connections: 300 } as const;
    // Fetches of one pod come in turn: its next one comes after all that the storm left.
    const untilDrained = () =>
      untilToken(asking, 'asking', { resource: `https://after-${(turn += 1)}` });
    const { control, stormed } = await inTurn(victim, asking, load, storm, {
      rounds: missRounds,
      untilDrained,
    });
    checkLoad(victim.name, [...control, ...stormed], 'victim');
    const line = `${describe(stormed)}, ${describe(control)} beside processor time alone`;
    testBed.log(line);
    const most = Math.max(missGoal.ms, missGoal.times * median(control, 'p50'));
    assert.ok(median(stormed, 'p50') <= most, line);
    return line;
  },
};

const probes = 160;
const probePort = 8085;

const probeStorm: Scenario = {
  name: 'probe-storm',
  title: `A pod on the host network connects as fast as it can, and keeps connections: ${probes} of ${probes} probes of the kubelet are answered.`,
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    const { environment } = testBed;
    testBed.bind('stormer', 'stormer');
    const stormer = await testBed.addPod({
      name: 'stormer',
      hostNetwork: true,
      binding: 'stormer',
    });
    const kubelet = await testBed.addPod({ name: 'kubelet', hostNetwork: true });
    await testBed.untilAgentKnows();
    const seen: string[] = [];
    const failures: string[] = [];
    for (const [at, port, many, holdMs] of [
      [defaultTarget.metadataIp, defaultTarget.metadataPort, open, 0],
      [environment.nodeIp, probePort, open, 0],
      [environment.nodeIp, probePort, openLong, 100],
    ] as const) {
      const durationMs = 8_000;
      const args = [at, port, many, durationMs + 2 * aroundMs, holdMs].map(String);
      const storming = beside(environment.runInPod(stormer.name, program, args));
      await delay(aroundMs);
      const report = await kubelet.load({
        targets: [{ target: '/livez', headers: [] }],
        host: environment.nodeIp,
        port: probePort,
        concurrency: 1,
        timeoutMs: 1_000,
        pauseMs: 30,
        durationMs,
      });
      const { code, stdout, stderr } = await storming;
      assert.equal(code, 0, stderr);
      const { requests, successes, latencyMs } = report;
      const line = `${successes} of ${requests} probes answered beside ${stdout.trim()} at ${at}:${port} held for ${holdMs} ms, slowest ${say(latencyMs.max)}`;
      testBed.log(line);
      seen.push(line);
      if (requests < probes || successes < requests) failures.push(line);
    }
    assert.deepEqual(failures, []);
    return seen.join('; ');
  },
};

type Measured = Partial<PodLoad>;

/** Rounds of a load beside a pod that only takes processor time, and beside the same pod that storms, in turn. */
async function inTurn(
  victim: LabPod,
  stormer: LabPod,
  load: Measured | (() => Measured),
  storm: Omit<PodAttack, 'durationMs'>,
  { rounds, untilDrained }: { readonly rounds: number; untilDrained?: () => Promise<unknown> },
): Promise<{
  readonly control: readonly PodLoadReport[];
  readonly stormed: readonly PodLoadReport[];
}> {
  const [control, stormed]: [PodLoadReport[], PodLoadReport[]] = [[], []];
  const spin = { style: 'spin', request: '', connections: 0 } as const;
  for (let round = 0; round < rounds; round += 1) {
    for (const [attack, reports] of [
      [spin, control],
      [storm, stormed],
    ] as const) {
      const measured = { durationMs: roundMs, ...(typeof load === 'function' ? load() : load) };
      const durationMs = measured.durationMs + aroundMs;
      reports.push(
        await loadBeside(victim, stormer.client.attack({ ...attack, durationMs }), measured),
      );
    }
    await untilDrained?.();
  }
  return { control, stormed };
}

function describe(reports: readonly PodLoadReport[]): string {
  return `p50 ${say(median(reports, 'p50'))}, p99 ${say(median(reports, 'p99'))}`;
}

async function loadBeside(
  victim: LabPod,
  attack: Promise<unknown>,
  measured: Measured & { readonly durationMs: number } = { durationMs: roundMs },
): Promise<PodLoadReport> {
  const attacking = beside(attack);
  await delay(aroundMs / 2);
  const load = await victim.load({ concurrency: 1, ...measured });
  await attacking;
  return load;
}

function say(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

function median(reports: readonly PodLoadReport[], percentile: 'p50' | 'p99'): number {
  const sorted = reports
    .map(({ latencyMs }) => latencyMs[percentile])
    .toSorted((one, two) => one - two);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function max(reports: readonly PodLoadReport[]): number {
  return Math.max(...reports.map(({ latencyMs }) => latencyMs.max));
}

export const stormScenarios: readonly Scenario[] = [
  connectStorm,
  busyConnections,
  misses,
  probeStorm,
];
