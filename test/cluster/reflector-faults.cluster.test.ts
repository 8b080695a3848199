/** The agent's watches, with production timing, and what only a real server does: restarts, compression, no streams. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { OwnTime } from '../../lab/pods/own-time.ts';
import type { Cluster } from './support/cluster.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';
import { deletePod, runPod } from './support/pods.ts';
import { openWatchedNode, type WatchedNode } from './support/watched-node.ts';

const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
const bound = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: demo, namespace: faults }
spec: { type: 0, clientID: 00000000-0000-4000-8000-000000000001 }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: demo, namespace: faults }
spec: { azureIdentity: demo, selector: demo }
`;

/** The server begins to serve one kind after the other; until then their watches fail. */
async function defineKinds(cluster: Cluster): Promise<void> {
  for (const { metadata } of await cluster.applyOverHttp(await readFile(crds, 'utf8'))) {
    const [plural = '', ...group] = (metadata?.name ?? '').split('.');
    const path = `/apis/${group.join('.')}/v1/${plural}`;
    await eventually(() => cluster.admin.expect('GET', path), 30_000);
  }
}

const restarts = {
  'was killed and started again': async (cluster: Cluster) => {
    await cluster.killApiserver();
    await delay(1000);
    await cluster.startApiserver();
  },
  'was stopped in good order and started again': (cluster: Cluster) => cluster.restart(),
};

describeOnEveryVersion('the watches of a node', (cluster) => {
  const admin = () => cluster().admin;
  let lastIp = 0;

  /** A pod of node-a with an identity. */
  function wish(name: string) {
    lastIp += 1;
    const ip = `10.1.${lastIp >> 8}.${lastIp & 255}`;
    const labels = { aadpodidbinding: 'demo' };
    return { namespace: 'faults', name, node: 'node-a', ip, labels };
  }

  function openNode(): Promise<WatchedNode> {
    return openWatchedNode({ access: cluster().adminAccess, node: 'node-a' });
  }

  before(async () => {
    await defineKinds(cluster());
    await cluster().createNamespace('faults');
    await eventually(() => cluster().applyOverHttp(bound), 30_000);
  });

  // Before the restarts: after one, a kind's storage answers 429 for a while.
  it('list compressed, and get what follows at once', async (t) => {
    const plural = 'azureidentitybindings';
    const many = Array.from({ length: 1_499 }, (_, index) => {
      const name = `many-${index}`;
      return { name, spec: { azureIdentity: 'demo', selector: name } };
    });
    await cluster().copy(`aadpodidentity.k8s.io/${plural}`, 'faults', 'demo', many);
    const path = `/apis/aadpodidentity.k8s.io/v1/${plural}`;
    const list = await eventually(() => admin().expect('GET', path), 30_000);
    const plainBytes = JSON.stringify(list).length;
    await using node = await openNode();
    assert.equal(node.grants.stats.bindings, 1_500);
    const { receivedBytes } = node.network;
    t.diagnostic(`${receivedBytes} bytes, TLS and the other kinds included, of ${plainBytes}`);
    assert.ok(receivedBytes < plainBytes / 5, `${receivedBytes}`);
    const fresh = wish('compressed');
    await runPod(admin(), fresh);
    await node.servable(fresh.ip);
    await deletePod(admin(), fresh);
    await admin().expect('DELETE', `/apis/aadpodidentity.k8s.io/v1/namespaces/faults/${plural}`);
    await eventually(() => assert.equal(node.grants.stats.bindings, 0));
    await eventually(() => cluster().applyOverHttp(bound), 30_000);
    assert.equal(node.watches.stats().bindings.restarts, 0);
  });

  for (const [what, restart] of Object.entries(restarts)) {
    it(`serve a new pod within 1 s after the server ${what}, and known ones all the time`, async (t) => {
      await using node = await openNode();
      const { pods } = node;
      const known = wish(`known-${lastIp}`);
      await runPod(admin(), known);
      await node.servable(known.ip);
      // The state after a long time without a fault.
      await delay(1200);
      let emptied = 0;
      const forget = pods.onChange(() => {
        if (pods.byIp(known.ip).kind !== 'pod') emptied += 1;
      });
      await restart(cluster());
      using time = new OwnTime();
      const fresh = wish(`fresh-${lastIp}`);
      await runPod(admin(), fresh);
      await node.servable(fresh.ip);
      const tookMs = time.nowMs();
      forget();
      t.diagnostic(`${Math.round(tookMs)} ms`);
      assert.ok(tookMs < 1000, `${tookMs} ms`);
      assert.equal(emptied, 0);
      for (const pod of [fresh, known]) await deletePod(admin(), pod);
    });
  }
});

describeOnEveryVersion(
  'the watches of a node, on a server that streams no lists',
  (cluster) => {
    it('list page by page, once streaming is refused', async () => {
      await defineKinds(cluster());
      await cluster().createNamespace('faults');
      await eventually(() => cluster().applyOverHttp(bound), 30_000);
      const pod = { namespace: 'faults', name: 'p', node: 'node-a', ip: '10.1.0.1' };
      const labels = { aadpodidbinding: 'demo' };
      await runPod(cluster().admin, { ...pod, labels });
      await using node = await openWatchedNode({ access: cluster().adminAccess, node: 'node-a' });
      await node.servable(pod.ip);
      const refused = node.log.filter(({ message }) => message.includes('page by page'));
      assert.ok(refused.length >= 1 && refused.length <= 5);
      assert.match(String(refused[0]?.fields['reason']), /sendInitialEvents is forbidden/);
      for (const [watch, { errorsByKind }] of Object.entries(node.watches.stats())) {
        const errors = Object.entries(errorsByKind).filter(([, count]) => count > 0);
        assert.deepEqual(errors, [], watch);
      }
      await cluster().killApiserver();
      await cluster().startApiserver();
      const late = { ...pod, name: 'late', ip: '10.1.0.2', labels };
      await runPod(cluster().admin, late);
      await node.servable(late.ip);
    });
  },
  ['--feature-gates=WatchList=false'],
);
