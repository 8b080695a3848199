/** The same tests on one or more versions of Kubernetes. */
import { after, before, describe } from 'node:test';
import { isWithin, sizeOfThisRun } from '../../runner/kinds.ts';
import { provideCluster, provideOlderCluster, type ClusterBinaries } from './binaries.ts';
import { startCluster, type Cluster } from './cluster.ts';
import type { Provided } from './go-programs.ts';

type Tests = (cluster: () => Cluster) => void;

/** For what does not depend on the version: on the oldest one too only in a long run. */
export function describeOnNewestVersion(what: string, tests: Tests): void {
  describeOn(versionsFor('long'), what, tests, []);
}

/** For what depends on the server: on the oldest version too from `./dev test --all` on. */
export function describeOnEveryVersion(
  what: string,
  tests: Tests,
  apiserverFlags: readonly string[] = [],
): void {
  describeOn(versionsFor('all'), what, tests, apiserverFlags);
}

/** The newest version, and the oldest in a run of at least that size. */
export function versionsFor(size: 'all' | 'long'): readonly Provided<ClusterBinaries>[] {
  const older = isWithin(size, sizeOfThisRun()) ? provideOlderCluster() : undefined;
  return [provideCluster(), ...(older === undefined ? [] : [older])];
}

/**
 * A `describe` for each version, with one cluster for all its tests; `cluster()` returns it while
 * they run. A missing version is skipped by name.
 */
function describeOn(
  versions: readonly Provided<ClusterBinaries>[],
  what: string,
  tests: Tests,
  apiserverFlags: readonly string[],
): void {
  for (const { name, programs, missing } of versions) {
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
