/** The agent's watches in a cluster of the largest usual size, on a real server. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { provideCluster } from '../support/binaries.ts';
import { startCluster, type Cluster } from '../support/cluster.ts';
import { runPod, setPodStatus } from '../support/pods.ts';
import type { Copy } from '../support/stored-copies.ts';
import { openWatchedNode } from '../support/watched-node.ts';
import type { Watched } from '../support/watching-process.ts';

const podsInCluster = 5000;
const podsOnNode = 110;
const identities = 10_000;
const bindings = 20_000;
const namespace = 'scale';
const group = `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}`;
const manifests = join(import.meta.dirname, '../../../deploy/crds.yaml');
const watching = join(import.meta.dirname, '../support/watching-process.ts');

// Only the newest version: this measures our code.
const provided = provideCluster();

describe('the watches of a node in a large cluster', { skip: provided.missing ?? false }, () => {
  let cluster: Cluster;

  before(async () => {
    if (provided.programs === undefined) throw new TypeError('the tests are skipped then');
    // As JSON, of which copies are made easily.
    cluster = await startCluster(provided.programs, ['--storage-media-type=application/json']);
    await cluster.applyOverHttp(await readFile(manifests, 'utf8'));
    await cluster.createNamespace(namespace);
    const kinds = ['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'];
    for (const kind of kinds) {
      await eventually(() => cluster.admin.expect('GET', `${group}/${kind}`), 30_000);
    }
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  async function watch(listBy: 'stream' | 'pages', t: TestContext): Promise<Watched> {
    const args = [watching, cluster.adminKubeconfig, 'node-a', listBy];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 120_000 });
    const watched = JSON.parse(stdout) as Watched;
    const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
    t.diagnostic(
      `by ${listBy}: ${Math.round(watched.tookMs)} ms, ${Math.round(watched.cpuMs)} ms of CPU, ` +
        `${mb(watched.heapBytes)} kept, ${mb(watched.peakBytes)} more at the peak, ` +
        `event loop stood still for ${Math.round(watched.longestStallMs)} ms at most`,
    );
    return watched;
  }

  it('find the 110 pods of the node among 5,000', async (t) => {
    const startMs = performance.now();
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    const labelsOf = (index: number) => ({ aadpodidbinding: `team-${index}` });
    await cluster.admin.expect('POST', pods, {
      metadata: { name: 'pod-0', labels: labelsOf(0) },
      spec: { nodeName: 'node-a', containers: [{ name: 'app', image: 'app' }] },
    });
    const copies = Array.from({ length: podsInCluster - 1 }, (_, position) => {
      const index = position + 1;
      const nodeName = index < podsOnNode ? 'node-a' : `node-${index % 50}`;
      return { name: `pod-${index}`, labels: labelsOf(index), spec: { nodeName } };
    });
    await cluster.copy('pods', namespace, 'pod-0', copies);
    for (let index = 0; index < podsOnNode; index += 1) {
      const ip = `10.1.0.${index}`;
      const status = { phase: 'Running', podIP: ip, podIPs: [{ ip }] };
      await setPodStatus(cluster.admin, { namespace, name: `pod-${index}` }, status);
    }
    t.diagnostic(`created in ${Math.round(performance.now() - startMs)} ms`);
    for (const listBy of ['stream', 'pages'] as const) {
      const watched = await watch(listBy, t);
      assert.equal(watched.pods, podsOnNode);
      assert.ok(watched.tookMs < 5000);
    }
  });

  it('serve a new pod as soon as the server reports it', async (t) => {
    const { admin, adminAccess } = cluster;
    for (const [kind, plural, { name, spec }] of [
      ['AzureIdentity', 'azureidentities', identity('latency')],
      ['AzureIdentityBinding', 'azureidentitybindings', binding('latency', 'latency')],
    ] as const) {
      const apiVersion = 'aadpodidentity.k8s.io/v1';
      const object = { apiVersion, kind, metadata: { name }, spec };
      await admin.expect('POST', `${group}/${plural}`, object);
    }
    await using node = await openWatchedNode({ access: adminAccess, node: 'node-latency' });
    /** When another, idle client of the server got each address. */
    const toldMs = new Map<string, number>();
    const stop = new AbortController();
    const query = 'watch=1&fieldSelector=spec.nodeName%3Dnode-latency&resourceVersion=0';
    const opened = Promise.withResolvers<undefined>();
    const telling = (async () => {
      const options = { timeoutMs: 120_000, onOpen: () => opened.resolve(undefined) };
      for await (const { object } of admin.watch(`/api/v1/pods?${query}`, options)) {
        const { podIP } = object.status as { readonly podIP?: string };
        if (podIP !== undefined && !toldMs.has(podIP)) toldMs.set(podIP, performance.now());
        if (stop.signal.aborted) return;
      }
    })();
    await opened.promise;
    const labels = { aadpodidbinding: 'latency' };
    let created = 0;
    /** The delays of 300 pods, shortest first. */
    async function measure(): Promise<readonly number[]> {
      const delays: number[] = [];
      for (; delays.length < 300; created += 1) {
        const ip = `10.3.${created >> 8}.${created & 255}`;
        const servable = node.servable(ip);
        const name = `new-${created}`;
        await runPod(admin, { namespace, name, node: 'node-latency', ip, labels });
        const servableMs = await servable;
        await eventually(() => assert.ok(toldMs.has(ip)));
        delays.push(servableMs - (toldMs.get(ip) ?? 0));
      }
      return delays.sort((one, other) => one - other);
    }
    // Other work runs on this machine too: one round of three has to meet the limit.
    const p99s: number[] = [];
    while (p99s.length < 3 && !p99s.some((p99) => p99 < 50)) {
      const delays = await measure();
      const at = (share: number): number => delays[Math.floor(share * delays.length)] ?? 0;
      p99s.push(at(0.99));
      t.diagnostic(
        `after a bare client was told: p50 ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms`,
      );
    }
    stop.abort();
    await runPod(admin, { namespace, name: 'last', node: 'node-latency', ip: '10.3.9.9' });
    await telling;
    assert.ok(Math.min(...p99s) < 50, p99s.join(' '));
  });

  it('hold 10,000 identities and 20,000 bindings', async (t) => {
    const startMs = performance.now();
    // Of the test before, there is one of each.
    const names = Array.from({ length: identities - 1 }, (_, index) => `id-${index}`);
    const kindOf = (plural: string) => `aadpodidentity.k8s.io/${plural}`;
    await cluster.copy(kindOf('azureidentities'), namespace, 'latency', names.map(identity));
    await cluster.copy(
      kindOf('azureidentitybindings'),
      namespace,
      'latency',
      Array.from({ length: bindings - 1 }, (_, index) =>
        binding(`binding-${index}`, `id-${index % identities}`),
      ),
    );
    t.diagnostic(`created in ${Math.round(performance.now() - startMs)} ms`);
    const watched = await watch('pages', t);
    assert.deepEqual([watched.identities, watched.bindings], [identities, bindings]);
    assert.ok(watched.heapBytes < 60e6 && watched.peakBytes < 250e6);
    assert.ok(watched.tookMs < 30_000);
  });
});

function identity(name: string): Copy {
  const provider = 'Microsoft.ManagedIdentity/userAssignedIdentities';
  return {
    name,
    spec: {
      type: 0,
      resourceID: `/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/rg/providers/${provider}/${name}`,
      clientID: '00000000-0000-0000-0000-000000000000',
    },
  };
}

function binding(name: string, azureIdentity: string): Copy {
  return { name, spec: { azureIdentity, selector: name } };
}
