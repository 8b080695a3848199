/**
 * The lab of the client tests, inside the azure namespace: one pod with two identities and one with
 * none. It starts client programs in them as its standard input asks, one after the other.
 */
import { createInterface } from 'node:readline';
import { eventually } from '../../../src/lab/eventually.ts';
import { attachFabric } from '../../../src/lab/fabric.ts';
import { openFabricGround } from '../../../src/lab/fabric-ground.ts';
import { createAzureIdentity } from '../../../src/lab/manifests.ts';
import { World } from '../../../src/lab/world.ts';
import type { ClientRun, ClientRunResult } from './client-lab.ts';

const hourMs = 3_600_000;
const agentSeries = /^nmi_requests_total\{route="([^"]+)",reason="([^"]+)"\} (\d+)$/gm;

const fabric = attachFabric(process.argv[2] ?? '');
await using ground = await openFabricGround(fabric, 'iptables');
await using world = new World(ground, () => undefined);
await world.reset();
const { name, clientId, resourceId } = world.assignIdentity('older');
const createdAtWallMs = Date.now() - hourMs;
world.kube.apply(createAzureIdentity({ name, clientId, resourceId, createdAtWallMs }));
world.addBinding(name, name, 'app');
world.bind('newer', 'app');
await world.addPod({ name: 'app', binding: 'app' });
await world.addPod({ name: 'plain' });
await world.untilAgentKnows();
process.stdout.write('"ready"\n');

for await (const line of createInterface({ input: process.stdin })) {
  const result = await runClient(JSON.parse(line) as ClientRun);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

async function runClient(run: ClientRun): Promise<ClientRunResult> {
  const before = await countRequests();
  if (run.outage === true) await world.imds.setFaults({ closed: true });
  try {
    const running = ground.runInPod(run.pod, run.command, run.args);
    if (run.outage === true) {
      const refused = eventually(async () => {
        const { 'token upstream_down': count = 0 } = since(before, await countRequests());
        if (count === 0) throw new Error('not yet');
      }, 20_000);
      // Whether the client met the outage is for the test to judge, by the count.
      await Promise.race([refused.catch(() => undefined), running]);
      await world.imds.setFaults({});
    }
    const { code, stdout, stderr } = await running;
    const requests = since(before, await countRequests());
    return { code, stdout, stderr, requests, leaks: world.leaks };
  } finally {
    await world.imds.setFaults({});
  }
}

/** What the agent says it answered, by route and reason. */
async function countRequests(): Promise<ReadonlyMap<string, number>> {
  const page = await world.agent.page('metrics');
  const found = (page?.text ?? '').matchAll(agentSeries);
  return new Map(
    [...found].map(([, route = '', reason = '', count]) => [`${route} ${reason}`, Number(count)]),
  );
}

function since(
  before: ReadonlyMap<string, number>,
  now: ReadonlyMap<string, number>,
): Readonly<Record<string, number>> {
  const grown = [...now].map(([series, count]) => [series, count - (before.get(series) ?? 0)]);
  return Object.fromEntries(grown.filter(([, count]) => count !== 0)) as Record<string, number>;
}
