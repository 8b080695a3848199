/** A program that starts a cluster, prints its processes and its folder, and waits. */
import { provideClusters } from './binaries.ts';
import { startCluster } from './cluster.ts';

const [provided] = provideClusters();
if (provided?.programs === undefined) throw new Error(provided?.missing);
const { pids, folder } = await startCluster(provided.programs);
console.log(JSON.stringify({ pids, folder }));
