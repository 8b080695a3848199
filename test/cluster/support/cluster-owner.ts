/** A program that starts a cluster, says which processes and which folder it has, and waits. */
import { provideClusters } from './binaries.ts';
import { startCluster } from './cluster.ts';

const [provided] = provideClusters();
if (provided?.programs === undefined) throw new Error(provided?.missing);
const { pids, folder } = await startCluster(provided.programs);
console.log(JSON.stringify({ pids, folder }));
