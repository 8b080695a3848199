/**
 * The startup taint of a node of the real API server, removed with the chart's permissions for it.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { systemClock } from '../../src/base/time/clock.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { asRecord } from '../../src/base/json-value.ts';
import { openKubeClient } from '../../src/nmi/kube/api/client.ts';
import { createLogger } from '../../src/base/logger.ts';
import { StartupTaint } from '../../src/nmi/admin/startup-taint.ts';
import { objectsOf, renderChart } from './chart/chart-render.ts';
import { provideHelm } from './support/binaries.ts';
import { describeOnOwnServer } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';

const key = 'entra-pod-identity/not-ready';
const account = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const taintedNode = `
apiVersion: v1
kind: Node
metadata: { name: tainted }
spec:
  taints:
    - { key: other, effect: NoSchedule }
    - { key: ${key}, effect: NoSchedule }
`;
const helm = provideHelm();

/** The chart's permissions for it. */
function rights(): string {
  const values = { nmi: { startupTaint: key } };
  const objects = objectsOf(renderChart({ helm: helm.programs ?? '', values }));
  return objects
    .filter(({ kind }) => /^(?:ServiceAccount|ClusterRole(?:Binding)?|Validating.*)$/.test(kind))
    .map((object) => stringify(object))
    .join('---\n');
}

describeOnOwnServer('the startup taint', (cluster) => {
  it(
    'is removed when the agent is ready, and no other taint with it',
    { skip: helm.missing ?? false },
    async () => {
      await cluster().applyOverHttp(`${taintedNode}---\n${rights()}`);
      // As large as a Node becomes: the policy compares all of it, and what a policy may compute is limited.
      const many = (prefix: string, count: number, text: string) =>
        Object.fromEntries(Array.from({ length: count }, (_, i) => [`${prefix}${i}`, text]));
      const annotations = many('example.com/annotation-', 40, 'a'.repeat(4_000));
      const labels = many('example.com/label-', 60, 'l'.repeat(60));
      const images = Array.from({ length: 50 }, (_, index) => ({
        names: [`registry.example/${'n'.repeat(180)}@${index}`, `registry.example/app:${index}`],
        sizeBytes: 1e9,
      }));
      const contentType = 'application/merge-patch+json';
      for (const [path, body] of [
        ['tainted', { metadata: { annotations, labels } }],
        ['tainted/status', { status: { images } }],
      ] as const) {
        await cluster().admin.expect('PATCH', `/api/v1/nodes/${path}`, body, { contentType });
      }
      // The server knows the node of an agent from its token.
      const { name } = account;
      const wish = { namespace: 'kube-system', name: 'agent', node: 'tainted', ip: '10.0.0.1' };
      const pod = await runPod(cluster().admin, { ...wish, serviceAccountName: name });
      const { uid } = pod.metadata;
      const boundTo = { kind: 'Pod', name: 'agent', uid } as const;
      const { kubeconfigPath } = await cluster().createServiceAccountClient({
        ...account,
        boundTo,
      });
      await using client = await openKubeClient({ kubeconfigPath, userAgent: 'test' });
      const keysOf = async (): Promise<readonly unknown[]> => {
        const node: unknown = await cluster().admin.expect('GET', '/api/v1/nodes/tainted');
        const taints = asRecord(asRecord(node)?.['spec'])?.['taints'];
        return Array.isArray(taints) ? taints.map((taint) => asRecord(taint)?.['key']) : [];
      };
      assert.ok((await keysOf()).includes(key));
      const log = createLogger({ format: 'json', level: 'silent', write: () => undefined });
      let isReady = false;
      using _taint = new StartupTaint({
        client,
        node: 'tainted',
        key,
        clock: systemClock,
        random: Math.random,
        log,
        isReady: () => isReady,
      });
      // Longer than the interval between two checks.
      await delay(1500);
      assert.ok((await keysOf()).includes(key));
      isReady = true;
      await eventually(async () => {
        const keys = await keysOf();
        assert.ok(!keys.includes(key));
        assert.ok(keys.includes('other'));
      });
    },
  );
});
