import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
} from '../../../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { StartError } from '../../../../src/base/start-error.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { startConditions } from '../../../../src/nmi/conditions-process.ts';
import { openConditions } from '../../../../src/nmi/conditions/conditions.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { readyIn } from '../../../support/ready-condition.ts';
import { clientOf, temporaryDir } from '../kube/kube-test-bed.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
const log = createLogger({ format: 'json', level: 'info', write: () => undefined });

function configOf(flags: Readonly<Record<string, string>>) {
  const parsed = parseConfig({ node: 'unnamed', 'agent-namespace': 'kube-system', ...flags }, {});
  assert.ok(parsed.ok);
  return parsed.config;
}

/** A server with an identity and a binding, and the part that writes their conditions. */
async function open(flags: Readonly<Record<string, string>> = {}, refused?: string) {
  await using opening = new AsyncDisposableStack();
  const kube = opening.use(await openFakeKube());
  const metadata = { name: 'nmi', namespace: 'kube-system' };
  const status = { desiredNumberScheduled: 3 };
  kube.apply({ apiVersion: 'apps/v1', kind: 'DaemonSet', metadata, status });
  kube.apply(createAzureIdentity({ name: 'cart', clientId }));
  kube.apply(createAzureIdentityBinding({ name: 'cart', azureIdentity: 'cart', selector: 'cart' }));
  if (refused !== undefined) kube.faults.failNext(1_000, 403, { containing: refused });
  const client = opening.use(await clientOf(kube));
  const config = configOf(flags);
  const parts = { client, config, clock: systemClock, random: Math.random, log };
  const { conditions, samples } = opening.use(openConditions(parts));
  const readyOf = (kind: string) => readyIn(kube.get({ kind, name: 'cart' })?.['status']);
  const opened = opening.move();
  return {
    kube,
    problems: () => conditions.map(({ name, problem }) => [name, problem()]),
    outcomes: () => samples().filter(({ labels }) => labels?.['outcome']),
    written: () => samples().find(({ labels }) => labels?.['outcome'] === 'written')?.value,
    /** Not twice in ten seconds. */
    untilReady: (identity: string, binding: string) =>
      eventually(() => {
        assert.equal(readyOf('AzureIdentity'), identity);
        assert.equal(readyOf('AzureIdentityBinding'), binding);
      }, 30_000),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

describe('status conditions', () => {
  it('are written by a process that watches the two kinds once, and no pods', async () => {
    await using testBed = await open();
    const { kube, problems, written } = testBed;
    await testBed.untilReady('True ok', 'True ok');
    await eventually(() => assert.equal(written(), 2));
    assert.deepEqual([kube.watches(), kube.watches('pods')], [2, 0]);
    assert.deepEqual(problems(), [
      ['watches', undefined],
      ['watches_current', undefined],
    ]);
  });

  it('follow the grants when owners are enforced', async () => {
    await using testBed = await open({ 'identity-owners': 'enforce' });
    const { kube, untilReady } = testBed;
    await untilReady('False identity_not_owned', 'False identity_not_owned');
    assert.equal(kube.watches(), 3);
    kube.apply(createAzureIdentityGrant('all', { namespaces: ['*'], clientIDs: [clientId] }));
    await untilReady('True ok', 'True ok');
  });

  for (const [refused, flags, problem] of [
    ['azureidentitybindings', {}, /^waiting for bindings \(FORBIDDEN/],
    ['azureidentitygrants', { 'identity-owners': 'enforce' }, /^waiting for grants \(FORBIDDEN/],
  ] as const) {
    it(`are not written before ${refused} are listed, which readiness reports`, async () => {
      await using testBed = await open(flags, refused);
      const { kube, problems, outcomes, written } = testBed;
      kube.apply(createAzureIdentityGrant('all', { namespaces: ['*'], clientIDs: [clientId] }));
      await eventually(() => assert.match(problems()[0]?.[1] ?? '', problem));
      assert.equal(outcomes().length, 6);
      assert.ok(outcomes().every(({ value }) => value === 0));
      kube.faults.clear();
      await testBed.untilReady('True ok', 'True ok');
      // The server has a status before the writer has its answer.
      await eventually(() => assert.equal(written(), 2, 'each is written once'));
    });
  }
});

/** The whole process; `start` starts it. */
async function openProcess() {
  await using opening = new AsyncDisposableStack();
  const kube: FakeKube = opening.use(await openFakeKube());
  const folder = opening.use(await temporaryDir());
  const kubeconfig = join(folder.path, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [probePort, metricsPort] = await twoFreePorts();
  const ports = { 'http-probe-port': `${probePort}`, 'prometheus-port': `${metricsPort}` };
  const config = configOf({ kubeconfig, ...ports });
  const opened = opening.move();
  const page = async (port: number, path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  return {
    kube,
    metricsPort,
    probe: (path: string) => page(probePort, path),
    metrics: async () => (await page(metricsPort, '/metrics')).text,
    start: () => startConditions({ config, clock: systemClock, log, environment: {} }),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

describe('the process that writes conditions', () => {
  it('is ready when both kinds are listed, and counts its writes', async () => {
    await using process = await openProcess();
    const { kube, probe, metrics } = process;
    kube.faults.failNext(1_000_000, 503, { containing: 'azureidentit' });
    kube.apply(createAzureIdentityBinding({ name: 'a', azureIdentity: 'none', selector: 'a' }));
    {
      await using _ = await process.start();
      assert.equal((await probe('/livez')).status, 200);
      const unready = await probe('/readyz');
      assert.equal(unready.status, 503);
      assert.match(unready.text, /waiting for identities/);
      assert.equal((await probe('/healthz')).text, 'Not Active');
      kube.faults.clear();
      await eventually(async () => {
        assert.equal((await probe('/readyz')).status, 200);
        assert.match(await metrics(), /^nmi_conditions_writes_total\{outcome="written"\} 1$/m);
      }, 60_000);
      assert.equal((await probe('/healthz')).text, 'Active');
      const text = await metrics();
      assert.match(text, /^nmi_build_info\{/m);
      // By which alerts and dashboards know an agent.
      assert.doesNotMatch(text, /^nmi_(?:ready|watch_\w+|redirect_up)\{/m);
    }
    await assert.rejects(probe('/livez'));
    await eventually(() => assert.equal(kube.watches(), 0));
  });

  it('does not start when one of its ports is in use, and leaves nothing open', async () => {
    await using process = await openProcess();
    const taken = createServer().listen(process.metricsPort);
    await once(taken, 'listening');
    await assert.rejects(process.start(), StartError);
    taken.close();
    await once(taken, 'close');
    await eventually(() => assert.equal(process.kube.watches(), 0));
    await using _ = await process.start();
  });
});
