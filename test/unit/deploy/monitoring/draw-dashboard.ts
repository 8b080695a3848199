/**
 * Draws docs/dashboard.svg from the dashboard's queries: in a node of the lab, a real Prometheus
 * scrapes the real executable under a load with throttling, an outage and more. Needs root and
 * `prometheus` in the path. In the azure namespace this program runs as `inner PREFIX`.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { attachFabric, fabricAddresses } from '../../../../lab/fabric/fabric.ts';
import { superviseLab } from '../../../../lab/fabric/supervise.ts';
import { openFabricEnvironment } from '../../../../lab/test-bed/fabric-environment.ts';
import { TestBed } from '../../../../lab/test-bed/test-bed.ts';
import { freshExecutable } from '../../../../scripts/build.ts';
import { busySeconds, keepBusy } from './busy-node.ts';
import { renderDashboard, type DrawnPanel, type PanelLine } from './dashboard-picture.ts';
import { openPrometheus, queryRange, type Prometheus } from './prometheus-child.ts';
import { isRow, readDashboard } from './queries.ts';

/** Interval of rates: longer than a busy machine delays a scrape. */
const rateInterval = '10s';
const adminPort = 8085;

const [verb, prefix = ''] = process.argv.slice(2);
if (verb === 'inner') {
  await draw(prefix);
} else {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  await freshExecutable();
  const command = [process.execPath, import.meta.filename] as const;
  process.exitCode = await superviseLab({ args: [], stop: stop.signal, command });
}

async function draw(fabricPrefix: string): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const command = [await freshExecutable()] as const;
  const fabric = attachFabric(fabricPrefix);
  const environment = opened.use(await openFabricEnvironment(fabric, 'auto', command));
  const testBed = opened.use(new TestBed(environment, () => undefined));
  await testBed.reset();
  const folder = await mkdtemp(join(tmpdir(), 'nmi-dashboard-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const target = `${fabricAddresses.nodeIp}:${adminPort}`;
  const prometheus = opened.use(await openPrometheus(folder, target));
  await delay(2_000);
  const beginS = Date.now() / 1000;
  await keepBusy(testBed);
  const panels: DrawnPanel[] = [];
  for (const panel of readDashboard().panels) {
    const lines = isRow(panel) ? [] : await linesOf(prometheus, panel.targets, beginS);
    const { title, type, gridPos } = panel;
    const unit = isRow(panel) ? '' : (panel.fieldConfig.defaults.unit ?? 'short');
    panels.push({ title, type, unit, gridPos, lines });
    assert.ok(isRow(panel) || lines.length > 0, `no data: ${title}`);
  }
  const path = join(import.meta.dirname, '../../../../docs/dashboard.svg');
  await writeFile(
    path,
    renderDashboard('The dashboard of Entra Pod Identity', panels, busySeconds),
  );
}

/** Series without a number in the whole time are left out. */
async function linesOf(
  from: Prometheus,
  targets: readonly { readonly expr: string; readonly legendFormat: string }[],
  fromS: number,
): Promise<readonly PanelLine[]> {
  const drawn = targets.map(async ({ expr, legendFormat }) => {
    const query = expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', rateInterval);
    const series = await queryRange(from, query, fromS, fromS + busySeconds);
    return series.map(({ metric, values }) => ({
      name: legendFormat.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? ''),
      points: values
        .map(([atS, value]) => [atS - fromS, Number(value)] as const)
        .filter(([, value]) => Number.isFinite(value)),
    }));
  });
  return (await Promise.all(drawn)).flat().filter(({ points }) => points.length > 0);
}
