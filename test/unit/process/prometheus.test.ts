/**
 * A real Prometheus scrapes a real agent: its page follows the rules for metrics, and Prometheus
 * accepts every query of the alert rules and of the dashboard.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { findMissingTool } from '../../support/debian-system.ts';
import { readAlerts, readPanels, selectorsOf } from '../deploy/monitoring/queries.ts';
import type { FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../../lab/fakes/kube/manifests.ts';
import { nodeName, openServices, type Services } from './agent-child.ts';
import {
  openPrometheus,
  query,
  until,
  type Prometheus,
} from '../deploy/monitoring/prometheus-child.ts';

const missing = findMissingTool('prometheus', 'promtool');
const skip =
  missing === undefined ? false : `${missing} is not installed (apt-get install prometheus)`;

/** Lint messages about metrics with names that the replaced system fixed. */
const accepted = /^aadpodidentity_\w+_errors_count /;

/**
 * Metrics that need a redirect, programs in the kernel, a certificate, the audit stream or a
 * service account, or that come from kube-state-metrics.
 */
const elsewhere =
  /^(?:nmi_ebpf_connects_total|nmi_redirect_(?:up|reconciles_total)|nmi_certificate_\w+|nmi_audit_\w+|nmi_conditions_writes_total|kube_\w+)$/;

/** Names of the alerts that are pending or firing. */
async function activeAlerts(prometheus: Prometheus): Promise<readonly string[]> {
  const names = (await rulesNow(prometheus))
    .filter(({ state }) => state !== 'inactive')
    .map(({ name }) => name);
  // The test machine may really be busy.
  return names.filter((name) => name !== 'NmiEventLoopSlow');
}

async function rulesNow(prometheus: Prometheus) {
  const { groups } = (await prometheus.get('rules')) as {
    readonly groups: readonly {
      readonly rules: readonly { name: string; health: string; state: string }[];
    }[];
  };
  return groups.flatMap(({ rules }) => rules);
}

/** An identity of the pod that its source refuses. @returns its client id. */
function bindUnassigned(kube: FakeKube): string {
  const { clientId, resourceId } = createLabIdentity('not-assigned');
  kube.apply(createAzureIdentity({ name: 'b', clientId, resourceId }));
  kube.apply(createAzureIdentityBinding({ name: 'b', azureIdentity: 'b', selector: 'app' }));
  return clientId;
}

interface Watched extends Services {
  readonly prometheus: Prometheus;
}

/** An agent, and a Prometheus that has scraped it. By default an agent has an alert that says what to do about owners. */
async function openWatched(
  isReady: boolean,
  variables: NodeJS.ProcessEnv = { NMI_IDENTITY_OWNERS: 'enforce' },
): Promise<Watched> {
  await using opening = new AsyncDisposableStack();
  const testBed = opening.use(await openServices());
  testBed.kube.faults.hang = !isReady;
  testBed.start(undefined, { KUBECONFIG: testBed.kubeconfig, ...variables });
  if (isReady) await testBed.untilReady();
  const target = `127.0.0.1:${testBed.probePort}`;
  const prometheus = opening.use(await openPrometheus(testBed.folder, target));
  // The first evaluation may come before the first scrape.
  await until(async () => (await query(prometheus, 'nmi_ready')).length > 0);
  const all = opening.move();
  return { ...testBed, prometheus, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

describe('Prometheus and a real agent', { skip, timeout: 600_000 }, () => {
  it('agree about the page, and about every query of the alert rules and of the dashboard', async () => {
    await using testBed = await openWatched(true, {});
    const { prometheus, pod } = testBed;
    assert.equal((await ask(pod, tokenTarget)).status, 200);
    assert.equal((await ask(pod, `${tokenTarget}&client_id=unknown`)).status, 400);
    const refused = bindUnassigned(testBed.kube);
    await eventually(async () => {
      const { text } = await ask(pod, `${tokenTarget}&client_id=${refused}`);
      assert.match(text, /identity_not_assigned/);
    });
    const page = (await testBed.page('metrics'))?.text ?? '';
    const lint = (input: string): readonly string[] => {
      const check = ['check', 'metrics'];
      const { stdout, stderr } = spawnSync('promtool', check, { encoding: 'utf8', input });
      return (stdout + stderr).split('\n').filter((line) => line !== '' && !accepted.test(line));
    };
    assert.deepEqual(lint(page), []);
    const misnamed = page.replaceAll('nmi_requests_total', 'nmi_requests');
    assert.match(lint(misnamed).join('\n'), /nmi_requests /);

    const panels = readPanels().flatMap(({ targets }) =>
      targets.map(({ expr }) =>
        expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '1m'),
      ),
    );
    const queries = [...panels, ...readAlerts().map(({ expr }) => expr)];
    for (const text of queries) await query(prometheus, text);
    const selected = queries.flatMap((text) => selectorsOf(text).map(({ metric }) => metric));
    const metrics = new Set(selected);
    assert.ok(metrics.size > 20);
    // A busy machine may miss a scrape, and then nothing is there until the next one.
    await eventually(async () => {
      for (const metric of metrics) {
        const isThere = (await query(prometheus, metric)).length > 0;
        assert.equal(isThere, !elsewhere.test(metric), metric);
      }
    }, 30_000);
    await assert.rejects(query(prometheus, 'sum by (nmi_ready'), /parse error/);
  });

  it('have the right alert soon after each fault begins', async () => {
    await using testBed = await openWatched(true, {});
    const { kube, imds, pod, prometheus } = testBed;
    let number = 0;
    /** Requests a token that is not in the cache. */
    const askForAnother = (selector = '') =>
      ask(pod, `${tokenTarget}-${number++}.example${selector}`);
    const raises = (alert: string, keepOn: () => Promise<unknown> = async () => undefined) =>
      until(async () => {
        await keepOn();
        return (await activeAlerts(prometheus)).includes(alert);
      });
    await imds.setFaults({ fail: { status: 429 }, paths: 'token' });
    await raises('NmiUpstreamThrottled', askForAnother);
    await imds.setFaults({ closed: true });
    await raises('NmiUpstreamDown', askForAnother);
    await imds.setFaults({});
    const clientId = bindUnassigned(kube);
    await raises('NmiTokensRunOut', () => askForAnother(`&client_id=${clientId}`));
    const useless = createAzureIdentity({ name: 'useless', clientId });
    kube.apply({ ...useless, spec: { type: 'no number' } });
    await raises('NmiObjectsSkipped');
    kube.apply(createPodManifest({ name: 'twin', nodeName, ips: ['127.0.0.11'], binding: 'app' }));
    await raises('NmiAddressesShared');
    await raises('NmiRequestsFail', () => ask(pod, tokenTarget));
  });

  it('have only the alert that the agent is not ready while a list is missing', async () => {
    await using testBed = await openWatched(false);
    await until(async () => (await activeAlerts(testBed.prometheus)).join() === 'NmiNotReady');
  });

  it('have no alert on a healthy node, and one when a pod is refused permanently', async () => {
    await using testBed = await openWatched(true);
    const active = async () => (await activeAlerts(testBed.prometheus)).join();
    await until(async () => (await active()) === '');
    await until(async () => {
      await ask(testBed.pod, `${tokenTarget}&client_id=unknown`);
      return (await active()) === 'NmiPodsRefused';
    });
    const rules = await rulesNow(testBed.prometheus);
    assert.equal(rules.length, readAlerts().length);
    for (const { name, health } of rules) assert.equal(health, 'ok', name);
  });
});
