/** A program that starts a cluster, prints its processes and its folder, and waits. */
import { provideCluster } from './binaries.ts';
import { startCluster } from './cluster.ts';

const provided = provideCluster();
if (provided.programs === undefined) throw new Error(provided.missing);
const { pids, folder } = await startCluster(provided.programs);
console.log(JSON.stringify({ pids, folder }));
