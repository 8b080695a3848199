/**
 * The lab of the client tests, inside the azure namespace. It starts client programs on requests
 * from standard input, many at once, each client in its own pods: one with two identities, one with
 * none.
 */
import { createInterface } from 'node:readline';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { attachFabric, fabricAddresses } from '../../../../lab/fabric/fabric.ts';
import { openFabricEnvironment } from '../../../../lab/test-bed/fabric-environment.ts';
import { createAzureIdentity, createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
import { nodeName, TestBed } from '../../../../lab/test-bed/test-bed.ts';
import { agentCommand } from '../../../support/agent-command.ts';
import type { ClientRun, ClientRunResult, LabReply, LabRequest } from './client-lab.ts';
import { openFakeArm } from './fake-arm.ts';
import { RequestLog } from './request-log.ts';

const hourMs = 3_600_000;
const label = 'app';

interface ClientPod {
  readonly space: string;
  readonly ip: string;
}

const fabric = attachFabric(process.argv[2] ?? '');
await using environment = await openFabricEnvironment(fabric, 'iptables', agentCommand);
await using arm = await openFakeArm(fabricAddresses.azureIp);
await using testBed = new TestBed(environment, () => undefined);
await testBed.reset(['--log-level=debug']);
const { name, clientId, resourceId } = testBed.assignIdentity('older');
const createdAtWallMs = Date.now() - hourMs;
testBed.kube.apply(createAzureIdentity({ name, clientId, resourceId, createdAtWallMs }));
testBed.addBinding(name, name, label);
testBed.bind('newer', label);
testBed.assignIdentity('untrusted');
await testBed.untilAgentKnows();
const log = new RequestLog(testBed.agent);
const pods = new Map<string, Promise<ClientPod>>();
say({ arm: { url: arm.url, caFile: arm.caFile } });

const atWork = new Set<Promise<void>>();
for await (const line of createInterface({ input: process.stdin })) {
  const work = serve(JSON.parse(line) as LabRequest).finally(() => atWork.delete(work));
  atWork.add(work);
}
await Promise.all(atWork);

async function serve({ id, runs, outage }: LabRequest): Promise<void> {
  try {
    say({ id, results: await (outage ? runInOutage(runs) : Promise.all(runs.map(runClient))) });
  } catch (error) {
    say({ id, error: error instanceof Error ? (error.stack ?? error.message) : 'unknown' });
  }
}

async function runClient(run: ClientRun): Promise<ClientRunResult> {
  const { space, ip } = await podFor(run);
  const before = await log.count(ip);
  const { code, stdout, stderr } = await environment.runInPod(space, run.command, run.args);
  const requests = since(before, await log.count(ip));
  return { code, stdout, stderr, requests, leaks: testBed.leaks };
}

/** The real service fails until each client has been refused once, or has given up. */
async function runInOutage(runs: readonly ClientRun[]): Promise<readonly ClientRunResult[]> {
  const found = await Promise.all(runs.map(podFor));
  const countRefused = (ip: string): number => log.countSoFar(ip)['token upstream_down'] ?? 0;
  const before = new Map(found.map(({ ip }) => [ip, countRefused(ip)]));
  await testBed.imds.setFaults({ fail: { status: 500 } });
  try {
    const running = runs.map(runClient);
    const refused = found.map(({ ip }) =>
      eventually(() => {
        if (countRefused(ip) === before.get(ip)) throw new Error('not yet');
      }, 30_000).catch(() => undefined),
    );
    // Whether a client met the outage is checked by the test, from the counts.
    await Promise.all(running.map((run, index) => Promise.race([run, refused[index]])));
    await testBed.imds.setFaults({});
    return await Promise.all(running);
  } finally {
    await testBed.imds.setFaults({});
  }
}

function podFor({ client, pod }: ClientRun): Promise<ClientPod> {
  const podName = pod === 'app' ? client : `${client}-plain`;
  const known = pods.get(podName) ?? addPod(podName, pod === 'app' ? label : undefined);
  pods.set(podName, known);
  return known;
}

/** Does not add the lab's own client; the owner of the fabric removes the pod. */
async function addPod(podName: string, binding: string | undefined): Promise<ClientPod> {
  const { ip, ips } = await fabric.addPod(podName);
  const where = { nodeName, ips, hostIp: environment.nodeIp };
  testBed.kube.apply(
    createPodManifest({ name: podName, ...where, ...(binding === undefined ? {} : { binding }) }),
  );
  await testBed.untilAgentKnows();
  return { space: podName, ip };
}

function since(
  before: Readonly<Record<string, number>>,
  now: Readonly<Record<string, number>>,
): Readonly<Record<string, number>> {
  const grown = Object.entries(now).map(([key, count]) => [key, count - (before[key] ?? 0)]);
  return Object.fromEntries(grown.filter(([, count]) => count !== 0)) as Record<string, number>;
}

function say(reply: LabReply): void {
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
