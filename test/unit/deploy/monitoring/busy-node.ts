/** Five minutes of a node's life with something to see in every panel of the dashboard. */
import { setTimeout as delay } from 'node:timers/promises';
import { createEntraApplication } from '../../../../lab/fakes/entra/applications.ts';
import { renderPfx } from '../../../../lab/fakes/pfx.ts';
import type { LabPod } from '../../../../lab/pods/pod.ts';
import { addApplication, addSecret } from '../../../../lab/test-bed/entra-objects.ts';
import type { TestBed } from '../../../../lab/test-bed/test-bed.ts';

export const busySeconds = 300;

/** Refreshes are due at half of it, in the outage. Requests wait for IMDS if a token lives less than 5 minutes. */
const tokenLifeMs = 6 * 60_000;
/** More than one pod may have. */
const tooManyConnections = 80;

interface Step {
  readonly atS: number;
  act(testBed: TestBed): Promise<unknown>;
}

/** The times are those of docs/alerts.md. */
const steps: readonly Step[] = [
  { atS: 40, act: deleteRules },
  { atS: 60, act: addReplica },
  { atS: 80, act: openTooMany },
  { atS: 110, act: ({ imds }) => imds.setFaults({ fail: { status: 429 }, paths: 'token' }) },
  { atS: 140, act: ({ imds }) => imds.setFaults({}) },
  { atS: 165, act: ({ imds }) => imds.setFaults({ closed: true }) },
  { atS: 200, act: issueNewTokens },
  { atS: 220, act: addReplica },
  { atS: 240, act: deleteRules },
  { atS: 260, act: openTooMany },
];

export async function keepBusy(testBed: TestBed): Promise<void> {
  const pods = await addPods(testBed);
  const startMs = performance.now();
  const seconds = () => (performance.now() - startMs) / 1000;
  const pending = [...steps];
  for (let number = 0; seconds() < busySeconds; number++) {
    const next = pending[0];
    if (next !== undefined && seconds() >= next.atS) {
      pending.shift();
      // A load lasts longer than this loop may wait.
      void next.act(testBed);
    }
    const asked = [pods.shop.ask(), pods.shop.ask(), pods.reports.ask()];
    // Never cached.
    if (number % 10 === 0) asked.push(pods.shop.ask({ resource: `https://${number}.example` }));
    // These wait for a binding, and the loop does not wait for them.
    if (number % 20 === 0) void pods.unbound.ask();
    await Promise.all(asked);
    await delay(50);
  }
}

interface Pods {
  readonly shop: LabPod;
  readonly reports: LabPod;
  readonly unbound: LabPod;
}

/** With an identity that is assigned to the node, with one that has a certificate, with none. */
async function addPods(testBed: TestBed): Promise<Pods> {
  testBed.imds.setTokenLifetime(tokenLifeMs);
  testBed.entra.setTokenLifetime(tokenLifeMs);
  testBed.bind('shop', 'shop', 'shop');
  const certificate = await testBed.environment.authority.issueClient('reports');
  const password = 'password-of-the-certificate';
  addSecret(testBed, 'reports', {
    certificate: await renderPfx(certificate, { password }),
    password,
  });
  const application = createEntraApplication('reports', {
    certificates: [certificate.certificatePem],
  });
  addApplication(testBed, application, { type: 2, clientPassword: { name: 'reports' } });
  const shop = await testBed.addPod({ name: 'shop', namespace: 'shop', binding: 'shop' });
  const reports = await testBed.addPod({ name: 'reports', binding: 'reports' });
  const unbound = await testBed.addPod({ name: 'web', namespace: 'web', binding: 'none' });
  await testBed.untilAgentKnows();
  return { shop, reports, unbound };
}

function addReplica(testBed: TestBed): Promise<LabPod> {
  const name = `shop-${testBed.pods.length}`;
  return testBed.addPod({ name, namespace: 'shop', binding: 'shop' });
}

/** Until then IMDS answers a refresh with the token that it issued before, as the real one does. */
function issueNewTokens({ imds }: TestBed): Promise<void> {
  imds.setTokenLifetime(tokenLifeMs);
  return imds.setFaults({});
}

/** As another program does that writes all rules anew. */
function deleteRules({ environment }: TestBed): Promise<unknown> {
  return environment.runInNode('iptables', ['-t', 'nat', '-F', 'aad-metadata']);
}

async function openTooMany({ pods }: TestBed): Promise<void> {
  await pods[0]?.load({
    concurrency: tooManyConnections,
    newConnectionPerRequest: false,
    durationMs: 4_000,
    pauseMs: 2_000,
  });
}
