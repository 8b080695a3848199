/** Many connections of one pod: what a busy pod needs, and what a hostile one takes from others. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { beside, checkLoad } from '../../pods/load-verdict.ts';
import type { LabPod } from '../../pods/pod.ts';
import type { PodLoadReport } from '../../pods/pod-protocol.ts';
import { assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const burst = 200;
const halfSent = 300;

const bursts: Scenario = {
  name: 'connection-bursts',
  title: `A pod opens ${burst} connections at once, or ${halfSent} with half a request each: it gets every token.`,
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('burst', 'burst');
    const pod = await testBed.addPod({ name: 'burst', binding: 'burst' });
    assertToken(await pod.ask(), 'burst');
    const asked = Array.from({ length: burst }, (_, at) => pod.ask({ connection: `burst-${at}` }));
    for (const reply of await Promise.all(asked)) assertToken(reply, 'burst');
    const open = await testBed.agent.metric('nmi_connections');
    assert.ok(open >= burst, `only ${open} connections are open`);
    const holder = await testBed.addPod({ name: 'half-sent', binding: 'burst' });
    const holding = beside(
      holder.client.attack({
        style: 'repeat',
        request: 'GET /metadata/identity/oauth2/token?api-ver',
        connections: halfSent,
        durationMs: 2_000,
      }),
    );
    await delay(1_000);
    for (let count = 0; count < 10; count += 1) assertToken(await holder.ask(), 'burst');
    await holding;
    return `${burst} of ${burst} answered at once; 10 of 10 beside ${halfSent} half-sent requests`;
  },
};

const rounds = 10;
const roundMs = 800;
/** The attack begins and ends by half of it before and after the load. */
const aroundMs = 400;
/** Of new connections of another pod: p50 beside the storm, in p50 without, and the slowest. */
const goal = { times: 5, ms: 300 };

const open = 180;
const storm = fileURLToPath(new URL('../../../dist/lab/pods/connect-storm', import.meta.url));

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
    const { metadataIp, metadataPort } = defaultTarget;
    const durationMs = roundMs + aroundMs;
    const args = [metadataIp, String(metadataPort), String(open), String(durationMs)];
    const besideStorm = async (): Promise<PodLoadReport> => {
      const storming = testBed.environment.runInPod(stormer.name, storm, args);
      const load = await loadBeside(victim, storming);
      const { code, stdout, stderr } = await storming;
      assert.equal(code, 0, stderr);
      tried = Math.max(tried, Number(/^tried=(\d+)/.exec(stdout)?.[1]));
      testBed.log(`slowest ${say(load.latencyMs.max)}; ${stdout.trim()}`);
      return load;
    };
    for (let round = 0; round < rounds; round += 1) {
      const spin = { style: 'spin', request: '', connections: 0, durationMs } as const;
      idle.push(await loadBeside(victim, stormer.client.attack(spin)));
      const load = await besideStorm();
      // Other programs of the machine may have come in between.
      attacked.push(load.latencyMs.max > goal.ms ? await besideStorm() : load);
    }
    checkLoad(victim.name, [...idle, ...attacked], 'victim');
    const line =
      `up to ${Math.round((tried * 1000) / durationMs)} connects a second tried; p50 of others ` +
      `${say(p50(attacked))}, ${say(p50(idle))} beside processor time alone; slowest ${say(max(attacked))}, ${say(max(idle))}`;
    testBed.log(line);
    assert.ok(p50(attacked) <= goal.times * p50(idle), line);
    assert.ok(max(attacked) <= Math.max(goal.ms, 2 * max(idle)), line);
    // Most connections are reset before the agent accepts them, and have no address any more.
    const request = 'GET / HTTP/1.1\r\n\r\n';
    await stormer.client.attack({ style: 'renew', request, connections: 64, durationMs });
    const metric = 'nmi_throttled_requests_total{namespace="default",limit="connection_rate"}';
    assert.ok((await testBed.agent.metric(metric)) > 0, 'the storm is not counted');
    return line;
  },
};

async function loadBeside(victim: LabPod, attack: Promise<unknown>): Promise<PodLoadReport> {
  const attacking = beside(attack);
  await delay(aroundMs / 2);
  const load = await victim.load({ durationMs: roundMs, concurrency: 1 });
  await attacking;
  return load;
}

function say(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

function p50(reports: readonly PodLoadReport[]): number {
  const sorted = reports.map(({ latencyMs }) => latencyMs.p50).toSorted((one, two) => one - two);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function max(reports: readonly PodLoadReport[]): number {
  return Math.max(...reports.map(({ latencyMs }) => latencyMs.max));
}

export const connectionScenarios: readonly Scenario[] = [bursts, connectStorm];
