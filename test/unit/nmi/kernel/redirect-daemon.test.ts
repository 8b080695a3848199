import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { StartError } from '../../../../src/base/start-error.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { startRedirectDaemon } from '../../../../src/nmi/redirect-daemon.ts';
import { twoFreePorts } from '../../../../lab/fabric/free-ports.ts';

async function open() {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-redirect-daemon-'));
  const [probePort, metricsPort] = await twoFreePorts();
  const parsed = parseConfig(
    {
      node: 'node-1',
      redirect: 'none',
      'http-probe-port': String(probePort),
      'prometheus-port': String(metricsPort),
    },
    { NMI_SHARED_FOLDER: folder },
  );
  assert.ok(parsed.ok);
  const log = createLogger({ format: 'json', level: 'error', write: () => undefined });
  return {
    folder,
    probePort,
    metricsPort,
    start: () => startRedirectDaemon({ config: parsed.config, clock: systemClock, log }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

describe('the redirect daemon', () => {
  it('has its own pages, and no socket of any kind without a redirect', async () => {
    using fixture = await open();
    await using _daemon = await fixture.start();
    const live = await fetch(`http://127.0.0.1:${fixture.probePort}/livez`);
    assert.equal(live.status, 200);
    const metrics = await fetch(`http://127.0.0.1:${fixture.metricsPort}/metrics`);
    const page = await metrics.text();
    assert.match(page, /^nmi_build_info\{/m);
    assert.doesNotMatch(page, /^nmi_redirect_up\{/m);
    assert.deepEqual(readdirSync(fixture.folder), []);
  });

  it('does not start when one of its ports is in use, and leaves no other open', async () => {
    using fixture = await open();
    const taken = createServer().listen(fixture.metricsPort);
    await once(taken, 'listening');
    await assert.rejects(fixture.start(), StartError);
    taken.close();
    await once(taken, 'close');
    await using _daemon = await fixture.start();
  });
});
