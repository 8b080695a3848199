/**
 * The API server of the benchmark `fleet`, which imports nothing of the tests: `fleet-cluster.ts SIZE
 * FLAG...` starts a cluster, fills it, and prints how to reach it and its processes. A line on its
 * standard input makes the server lose its history; then it prints the processes again.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  fleetBinding,
  fleetIdentity,
  fleetNamespace,
  fleetPath,
  fleetPod,
  podStatus,
  podsOf,
  teams,
  type FleetSize,
} from '../../../bench/fixture/fleet-objects.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { provideCluster } from './binaries.ts';
import { startCluster } from './cluster.ts';
import { setPodStatus } from './pods.ts';

const [sizeText = '{}', ...flags] = process.argv.slice(2);
const size = JSON.parse(sizeText) as FleetSize;
const { programs, missing } = provideCluster();
if (programs === undefined) throw new Error(missing);
const stopped = new Promise((resolve) => process.once('SIGTERM', resolve));
await using cluster = await startCluster(
  programs,
  // Copies are made of objects that are stored as JSON.
  ['--storage-media-type=application/json', ...flags],
  // As kubeadm and others set it up. Else a kind that does not change has no bookmarks.
  ['--watch-progress-notify-interval=5s'],
);
const { admin, adminAccess: access } = cluster;
await cluster.applyOverHttp(
  await readFile(join(import.meta.dirname, '../../../deploy/crds.yaml'), 'utf8'),
);
await cluster.createNamespace(fleetNamespace);

for (const [plural, count, make] of [
  ['azureidentities', size.identities, fleetIdentity],
  ['azureidentitybindings', size.bindings, fleetBinding],
] as const) {
  const [original = '', ...others] = teams(count);
  await eventually(() => admin.expect('POST', fleetPath(plural), make(original)), 30_000);
  const copies = others.map((name) => ({ name, spec: make(name).spec }));
  await cluster.copy(`aadpodidentity.k8s.io/${plural}`, fleetNamespace, original, copies);
}
const [first, ...others] = podsOf(size);
if (first === undefined) throw new TypeError('a fleet has pods');
await admin.expect('POST', fleetPath('pods'), fleetPod(first.name, first.node));
await setPodStatus(admin, { namespace: fleetNamespace, name: first.name }, podStatus('Running'));
const copies = others.map(({ name, node }) => ({ name, spec: { nodeName: node } }));
await cluster.copy('pods', fleetNamespace, first.name, copies);

const print = (): void => console.log(JSON.stringify({ access, pids: cluster.pids }));
print();
createInterface({ input: process.stdin }).on('line', () => {
  void (async () => {
    await cluster.compact();
    await cluster.restart();
    print();
  })();
});
await stopped;
