/**
 * Status conditions of many objects on a real API server: each is written once, in the pace of the
 * number of nodes, and a namespace with few objects does not wait for one with many.
 * `NMI_CONDITIONS_OBJECTS=10000` takes 17 minutes.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { readyIn } from '../../support/ready-condition.ts';
import { provideCluster } from '../support/binaries.ts';
import { inBulk } from '../support/bulk.ts';
import { startCluster, type Cluster } from '../support/cluster.ts';
import { openConditionsProcess, setNodes } from '../support/conditions-process.ts';

const objects = Number(process.env['NMI_CONDITIONS_OBJECTS'] ?? 100);
const writesPerSec = 10;
const clientID = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const deploy = join(import.meta.dirname, '../../../deploy');
const read = (path: string): Promise<string> => readFile(join(deploy, path), 'utf8');
const apiVersion = 'aadpodidentity.k8s.io/v1';
const plurals = ['azureidentities', 'azureidentitybindings'] as const;
const noWrites = { written: 0, conflict: 0, deleted: 0, rejected: 0, forbidden: 0, failed: 0 };
const pathOf = (namespace: string, plural: string): string =>
  `/apis/${apiVersion}/namespaces/${namespace}/${plural}`;

// Only the newest version: this measures our code.
const provided = provideCluster();

describe('the conditions of many objects', { skip: provided.missing ?? false }, () => {
  let cluster: Cluster;

  async function put(namespace: string, name: string): Promise<void> {
    const identity = { apiVersion, kind: 'AzureIdentity', metadata: { name } };
    const binding = { apiVersion, kind: 'AzureIdentityBinding', metadata: { name } };
    const spec = { azureIdentity: name, selector: name };
    const [identities, bindings] = plurals.map((plural) => pathOf(namespace, plural));
    await cluster.admin.expect('POST', identities ?? '', { ...identity, spec: { clientID } });
    await cluster.admin.expect('POST', bindings ?? '', { ...binding, spec });
  }

  /** Number of objects with each value of the condition Ready. */
  async function readyOf(namespace: string): Promise<Readonly<Record<string, number>>> {
    const counts: Record<string, number> = {};
    for (const plural of plurals) {
      const { items } = await cluster.admin.expect('GET', pathOf(namespace, plural));
      for (const { status } of items as readonly { readonly status?: unknown }[]) {
        const ready = readyIn(status);
        counts[ready] = (counts[ready] ?? 0) + 1;
      }
    }
    return counts;
  }

  before(async () => {
    if (provided.programs === undefined) throw new TypeError('the tests are skipped then');
    cluster = await startCluster(provided.programs);
    await cluster.apply(await read('crds.yaml'));
    await cluster.kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
    await eventually(async () => cluster.apply(await read('nmi.yaml')));
    await setNodes(cluster, 500);
    for (const namespace of ['many', 'few']) await cluster.createNamespace(namespace);
    await inBulk(objects / 2, (index) => put('many', `object-${index}`));
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  it('are each written once, and another namespace does not wait for them', async (t: TestContext) => {
    await using process = await openConditionsProcess(cluster);
    const written = (): number => process.writes()['written'] ?? 0;
    const timeoutMs = (objects / writesPerSec) * 1_500 + 30_000;
    await eventually(() => assert.ok(written() > 0), 60_000);
    const startMs = performance.now();
    await put('few', 'one');
    await eventually(async () => assert.deepEqual(await readyOf('few'), { 'True ok': 2 }), 15_000);
    const fewMs = performance.now() - startMs;
    assert.ok(written() < objects, `${written()} were written by then`);
    await eventually(() => assert.equal(written(), objects + 2), timeoutMs);
    const allMs = performance.now() - startMs;
    t.diagnostic(
      `${objects} objects in ${(allMs / 1000).toFixed(0)} s; two of another namespace meanwhile ` +
        `in ${(fewMs / 1000).toFixed(1)} s`,
    );
    assert.ok(allMs > (objects / writesPerSec) * 1_000 * 0.9 - 1_000, 'at most ten a second');
    assert.deepEqual(await readyOf('many'), { 'True ok': objects });
    await delay(3_000);
    assert.deepEqual(process.writes(), { ...noWrites, written: objects + 2 });
  });

  it('are not written again by the next process', async () => {
    await using process = await openConditionsProcess(cluster);
    await delay(8_000);
    assert.deepEqual(process.writes(), noWrites);
  });

  it('are written once a second for 5,000 nodes', async () => {
    await setNodes(cluster, 5_000);
    await inBulk(10, (index) => put('few', `later-${index}`));
    await using process = await openConditionsProcess(cluster);
    const written = (): number => process.writes()['written'] ?? 0;
    await eventually(() => assert.equal(written(), 1), 30_000);
    const startMs = performance.now();
    await eventually(() => assert.ok(written() >= 10), 30_000);
    const lastMs = performance.now() - startMs;
    assert.ok(lastMs > 8_000 && lastMs < 20_000, `${lastMs} ms`);
  });

  it('are written at the same time by two processes, without a write that says nothing new', async () => {
    await setNodes(cluster, 1);
    await inBulk(10, (index) => put('few', `two-${index}`));
    await using one = await openConditionsProcess(cluster);
    await using two = await openConditionsProcess(cluster);
    const written = (): number => (one.writes()['written'] ?? 0) + (two.writes()['written'] ?? 0);
    await eventually(async () => {
      assert.deepEqual(Object.keys(await readyOf('few')), ['True ok']);
    }, 60_000);
    await delay(15_000);
    // Of the test before, 10 are left at most.
    assert.ok(written() >= 20 && written() <= 30, `${written()}`);
    const sum = written();
    await delay(5_000);
    assert.equal(written(), sum);
  });
});
