import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createAzureIdentityBinding } from '../../../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { StartError } from '../../../../src/base/start-error.ts';
import { startConditions } from '../../../../src/nmi/conditions-process.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';

async function open() {
  await using opening = new AsyncDisposableStack();
  const kube = opening.use(await openFakeKube());
  const folder = await mkdtemp(join(tmpdir(), 'nmi-conditions-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, kube.kubeconfig());
  const [probePort, metricsPort] = await twoFreePorts();
  const parsed = parseConfig(
    {
      node: 'unnamed',
      kubeconfig,
      'http-probe-port': String(probePort),
      'prometheus-port': String(metricsPort),
    },
    {},
  );
  assert.ok(parsed.ok);
  const { config } = parsed;
  const log = createLogger({ format: 'json', level: 'error', write: () => undefined });
  const opened = opening.move();
  return {
    kube,
    metricsPort,
    page: async (port: number, path: string) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return { status: response.status, text: await response.text() };
    },
    probePort,
    start: () => startConditions({ config, clock: systemClock, log, environment: {} }),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

describe('the process that writes conditions', () => {
  it('is ready when both kinds are listed, and counts its writes', async () => {
    await using fixture = await open();
    const { kube, page, probePort, metricsPort } = fixture;
    kube.faults.failNext(1_000_000, 503, { containing: 'azureidentit' });
    kube.apply(createAzureIdentityBinding({ name: 'a', azureIdentity: 'none', selector: 'a' }));
    {
      await using _ = await fixture.start();
      assert.equal((await page(probePort, '/livez')).status, 200);
      const unready = await page(probePort, '/readyz');
      assert.equal(unready.status, 503);
      assert.match(unready.text, /waiting for identities/);
      assert.equal((await page(probePort, '/healthz')).text, 'Not Active');
      kube.faults.clear();
      await eventually(async () => {
        assert.equal((await page(probePort, '/readyz')).status, 200);
        const { text } = await page(metricsPort, '/metrics');
        assert.match(text, /^nmi_conditions_writes_total\{outcome="written"\} 1$/m);
      }, 60_000);
      assert.equal((await page(probePort, '/healthz')).text, 'Active');
    }
    await assert.rejects(page(probePort, '/livez'));
    await eventually(() => assert.equal(kube.watches(), 0));
  });

  it('exports nothing by which alerts and dashboards know an agent', async () => {
    await using fixture = await open();
    await using _ = await fixture.start();
    const { text } = await fixture.page(fixture.metricsPort, '/metrics');
    assert.match(text, /^nmi_build_info\{/m);
    assert.doesNotMatch(text, /^nmi_(?:ready|watch_\w+|redirect_up)\{/m);
  });

  it('does not start when one of its ports is in use, and leaves nothing open', async () => {
    await using fixture = await open();
    const taken = createServer().listen(fixture.metricsPort);
    await once(taken, 'listening');
    await assert.rejects(fixture.start(), StartError);
    taken.close();
    await once(taken, 'close');
    await eventually(() => assert.equal(fixture.kube.watches(), 0));
    await using _ = await fixture.start();
  });
});
