import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { refusals } from '../../../src/nmi/base/answers.ts';
import { presetSeries } from '../../../src/nmi/telemetry/preset-series.ts';

describe('series that exist before the first event', () => {
  it('are zero, for every outcome in an alert', async () => {
    const metrics = createMetrics();
    presetSeries(metrics);
    const page = await metrics.render();
    for (const series of [
      'nmi_token_cache_requests_total{outcome="hit"}',
      'nmi_token_cache_requests_total{outcome="overloaded"}',
      'nmi_token_refreshes_total{outcome="failed"}',
      'nmi_upstream_requests_total{source="imds",outcome="upstream_down"}',
      'aadpodidentity_imds_operations_errors_count{operation_type="adal_token_msi"}',
      'nmi_requests_total{route="token",reason="ok"}',
    ]) {
      assert.ok(page.includes(`\n${series} 0\n`), series);
    }
  });

  it('exist for every reason of a request, and every kind of credential', async () => {
    const metrics = createMetrics();
    presetSeries(metrics);
    const page = await metrics.render();
    for (const reason of ['ok', ...Object.keys(refusals)]) {
      assert.match(
        page,
        new RegExp(`^nmi_requests_total\\{route="[a-z-]+",reason="${reason}"\\} 0$`, 'm'),
      );
    }
    for (const source of ['secret', 'certificate', 'federated_pod', 'federated_node']) {
      assert.ok(page.includes(`{source="${source}",outcome="credential_refused"} 0\n`), source);
    }
    assert.doesNotMatch(page, /source="imds",outcome="credential_refused"/);
  });
});
