/** The startup taint of a node of the real API server, taken off under the chart's rights for it. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { systemClock } from '../../src/cache/clock.ts';
import { eventually } from '../../src/lab/eventually.ts';
import { asRecord } from '../../src/nmi/json-value.ts';
import { openKubeClient } from '../../src/nmi/kube/client.ts';
import { createLogger } from '../../src/nmi/logger.ts';
import { StartupTaint } from '../../src/nmi/startup-taint.ts';
import { describeOnClusters } from './support/on-clusters.ts';

const key = 'entra-pod-identity/not-ready';
const account = { namespace: 'kube-system', name: 'taint-remover' };
const objects = `
apiVersion: v1
kind: Node
metadata: { name: tainted }
spec:
  taints:
    - { key: other, effect: NoSchedule }
    - { key: ${key}, effect: NoSchedule }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${account.name}, namespace: ${account.namespace} }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: remove-taint }
rules: [{ apiGroups: [''], resources: [nodes], verbs: [get, patch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: remove-taint }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: remove-taint }
subjects: [{ kind: ServiceAccount, name: ${account.name}, namespace: ${account.namespace} }]
`;

describeOnClusters('the startup taint', (cluster) => {
  it('goes when the agent is ready, and no other with it', async () => {
    await cluster().applyOverHttp(objects);
    const { kubeconfigPath } = await cluster().createServiceAccountClient(account);
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'test' });
    const keysOf = async (): Promise<readonly unknown[]> => {
      const node = asRecord(await client.getJson('/api/v1/nodes/tainted'));
      const taints = asRecord(node?.['spec'])?.['taints'];
      return Array.isArray(taints) ? taints.map((taint) => asRecord(taint)?.['key']) : [];
    };
    assert.ok((await keysOf()).includes(key));
    const log = createLogger({ format: 'json', level: 'silent', write: () => undefined });
    using _taint = new StartupTaint({
      ...{ client, node: 'tainted', key, clock: systemClock, random: Math.random, log },
      isReady: () => true,
    });
    await eventually(async () => {
      const keys = await keysOf();
      assert.ok(!keys.includes(key));
      assert.ok(keys.includes('other'));
    });
  });
});
