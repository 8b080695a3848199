import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newMetrics, oldMetrics, type MetricRow } from '../../../src/nmi/telemetry/metric-table.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';

describe('the metrics', () => {
  it('count, set and observe by name and labels', async () => {
    const metrics = createMetrics();
    metrics.inc('nmi_connections_refused_total', { limit: 'total' });
    metrics.inc('nmi_connections_refused_total', { limit: 'total' }, 4);
    metrics.set('nmi_connections', 7);
    metrics.observe('nmi_upstream_duration_seconds', 0.015, { source: 'imds' });
    metrics.observer('nmi_upstream_duration_seconds', { source: 'imds' })(2);
    const page = await metrics.render();
    assert.match(page, /^nmi_connections_refused_total\{limit="total"\} 5$/m);
    assert.match(page, /^nmi_connections 7$/m);
    assert.match(page, /^nmi_upstream_duration_seconds_bucket\{.*le="0\.02".*\} 1$/m);
    assert.match(page, /^nmi_upstream_duration_seconds_count\{source="imds"\} 2$/m);
    assert.match(page, /^nmi_build_info\{version="0\.0\.0-source",commit="unknown"\} 1$/m);
  });

  it('accept totals that are counted elsewhere, and never decrease', async () => {
    const metrics = createMetrics();
    const totalOf = async (): Promise<string | undefined> =>
      /^nmi_watch_relists_total\{resource="pods"\} (\d+)$/m.exec(await metrics.render())?.[1];
    const labels = { resource: 'pods' };
    for (const [total, exported] of [
      [3, '3'],
      [5, '5'],
      [2, '5'],
      [4, '7'],
    ] as const) {
      metrics.export('nmi_watch_relists_total', total, labels);
      assert.equal(await totalOf(), exported);
    }
    metrics.export('nmi_watch_relists_total', 1, { resource: 'bindings' });
    assert.equal(await totalOf(), '7', 'of its own labels');
    metrics.export('nmi_connections', 3);
    metrics.export('nmi_connections', 2);
    assert.match(await metrics.render(), /^nmi_connections 2$/m);
  });

  it('leave out the names of the replaced system when they are disabled', async () => {
    const metrics = createMetrics({ oldNames: false });
    metrics.inc('aadpodidentity_imds_operations_errors_count', { operation_type: 'a' });
    metrics.observe('aadpodidentity_imds_operations_duration_seconds', 1, { operation_type: 'a' });
    assert.doesNotMatch(await metrics.render(), /aadpodidentity/);
    assert.match(await createMetrics().render(), /^# TYPE aadpodidentity_imds_operations_err/m);
  });

  it('refuse a name that is not in their table', () => {
    const metrics = createMetrics();
    assert.throws(() => metrics.export('nmi_unknown', 1), /has no gauge or counter nmi_unknown/);
    assert.throws(() => metrics.export('nmi_upstream_duration_seconds', 1), TypeError);
  });

  it('count in buckets whose bounds are above 0 and ascend, as Prometheus requires', () => {
    for (const [name, row] of Object.entries<MetricRow>({ ...oldMetrics, ...newMetrics })) {
      const { buckets = [] } = row;
      const ascending = [...new Set(buckets)].toSorted((a, b) => a - b);
      assert.deepEqual(buckets, ascending, name);
      assert.ok(
        buckets.every((bound) => bound > 0),
        name,
      );
    }
  });

  it('fill their gauges before every scrape', async () => {
    const metrics = createMetrics();
    let scrapes = 0;
    metrics.onScrape(() => scrapes++);
    await metrics.render();
    await metrics.render();
    assert.equal(scrapes, 2);
  });
});
