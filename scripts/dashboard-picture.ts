/**
 * Draws docs/dashboard.svg from the dashboard's queries: a real Prometheus scrapes a real agent
 * under a small load with a minute of throttling and outage. Needs `prometheus` in the path.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createPodManifest } from '../lab/fakes/kube/manifests.ts';
import { openLoopbackPod } from '../lab/pods/pod-client.ts';
import { readDashboard } from '../test/deploy/monitoring/queries.ts';
import { nodeName, openServices, type Services } from '../test/process/agent-child.ts';
import { openPrometheus, queryRange, type Prometheus } from '../test/process/prometheus-child.ts';
import { ask, tokenTarget } from '../test/support/ask.ts';
import { renderDashboard, type DrawnPanel, type PanelLine } from './dashboard/picture.ts';

const seconds = 120;
const throttled = { fromS: 50, toS: 65 } as const;
const away = { fromS: 75, toS: 95 } as const;
/** Interval of rates: a few scrapes. */
const rateInterval = '5s';

await using testBed = await openServices();
const { kube, listenPort } = testBed;
const unboundIp = '127.0.0.12';
kube.apply(
  createPodManifest({
    name: 'web',
    namespace: 'shop',
    nodeName,
    ips: [unboundIp],
    binding: 'none',
  }),
);
await using unbound = openLoopbackPod({
  name: 'web',
  sourceIp: unboundIp,
  host: '127.0.0.1',
  port: listenPort,
});
testBed.start();
await testBed.untilReady();
await using prometheus = await openPrometheus(testBed);
const beginS = Date.now() / 1000;
await load(testBed, beginS);
const panels: DrawnPanel[] = [];
for (const { title, type, gridPos, fieldConfig, targets } of readDashboard().panels) {
  const drawn = await Promise.all(
    targets.map(({ expr, legendFormat }) => linesOf(prometheus, expr, legendFormat, beginS)),
  );
  const { unit = 'short' } = fieldConfig.defaults;
  panels.push({ title, type, unit, gridPos, lines: drawn.flat() });
}
const path = join(import.meta.dirname, '../docs/dashboard.svg');
await writeFile(path, renderDashboard('The dashboard of Entra Pod Identity', panels, seconds));

/** Requests cached and uncached tokens, for a pod with an identity and for one without. */
async function load({ pod, imds }: Services, fromS: number): Promise<void> {
  const isIn = (atS: number, { fromS: from, toS: to }: typeof throttled | typeof away) =>
    atS >= from && atS < to;
  let fault = '';
  for (let number = 0; ; number++) {
    const atS = Date.now() / 1000 - fromS;
    if (atS > seconds) return;
    const wanted = isIn(atS, throttled) ? 'throttled' : isIn(atS, away) ? 'away' : '';
    if (wanted !== fault) {
      const faults = { throttled: { fail: { status: 429 } }, away: { closed: true } };
      await imds.setFaults(wanted === '' ? {} : faults[wanted]);
      fault = wanted;
    }
    const asked = [ask(pod, tokenTarget), ask(pod, tokenTarget)];
    // Never cached.
    if (number % 10 === 0) asked.push(ask(pod, `${tokenTarget}-${number}.example`));
    // The request waits for a binding, and this loop does not wait for the request.
    if (number % 20 === 0) ask(unbound, tokenTarget).catch(() => undefined);
    await Promise.all(asked.map((each) => each.catch(() => undefined)));
    await delay(50);
  }
}

async function linesOf(
  from: Prometheus,
  expr: string,
  legend: string,
  fromS: number,
): Promise<readonly PanelLine[]> {
  const query = expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', rateInterval);
  const series = await queryRange(from, query, fromS, fromS + seconds);
  return series.map(({ metric, values }) => ({
    name: legend.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? ''),
    points: values
      .map(([atS, value]) => [atS - fromS, Number(value)] as const)
      .filter(([, value]) => Number.isFinite(value)),
  }));
}
