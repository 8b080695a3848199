/** The same tests on every version of Kubernetes that is available here. */
import { after, before, describe } from 'node:test';
import { provideClusters } from './binaries.ts';
import { startCluster, type Cluster } from './cluster.ts';

/**
 * A `describe` for each version, with one cluster for all its tests; `cluster()` returns it while
 * they run. A missing version is skipped by name.
 */
export function describeOnClusters(
  what: string,
  tests: (cluster: () => Cluster) => void,
  apiserverFlags: readonly string[] = [],
): void {
  for (const { name, programs, missing } of provideClusters()) {
    if (missing !== undefined) {
      describe(`${what} (${name})`, { skip: missing }, () => undefined);
      continue;
    }
    describe(`${what} (${name})`, () => {
      let started: Cluster | undefined;
      before(async () => {
        started = await startCluster(programs, apiserverFlags);
      });
      after(async () => {
        await started?.[Symbol.asyncDispose]();
      });
      tests(() => {
        if (started === undefined) throw new TypeError('no cluster is running');
        return started;
      });
    });
  }
}
