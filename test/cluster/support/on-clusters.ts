/** The same tests on one or more versions of Kubernetes. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { isWithin, sizeOfThisRun } from '../../runner/kinds.ts';
import { provideCluster, provideOlderCluster, type ClusterBinaries } from './binaries.ts';
import { startCluster, type Cluster } from './cluster.ts';
import type { Provided } from './go-programs.ts';
import { readStoredState, restoreStoredState, type StoredState } from './stored-state.ts';

type Tests = (cluster: () => Cluster) => void;

/**
 * For what does not depend on the version: on the oldest one too only in a long run. All such suites of
 * a process run on one server, one after another; each finds it as after its start.
 */
export function describeOnNewestVersion(what: string, tests: Tests): void {
  describeOn(versionsFor('long'), what, tests, shared);
}

/** The same on a server of its own: for what restarts it. */
export function describeOnOwnServer(what: string, tests: Tests): void {
  describeOn(versionsFor('long'), what, tests, separate());
}

/** For what depends on the server: on the oldest version too from `./dev test --all` on. */
export function describeOnEveryVersion(
  what: string,
  tests: Tests,
  apiserverFlags: readonly string[] = [],
): void {
  describeOn(versionsFor('all'), what, tests, separate(apiserverFlags));
}

/** The newest version, and the oldest in a run of at least that size. */
function versionsFor(size: 'all' | 'long'): readonly Provided<ClusterBinaries>[] {
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
  server: Server,
): void {
  for (const { name, programs, missing } of versions) {
    if (missing !== undefined) {
      describe(`${what} (${name})`, { skip: missing }, () => undefined);
      continue;
    }
    describe(`${what} (${name})`, () => {
      let taken: Cluster | undefined;
      before(async () => {
        taken = await server.take(programs);
      });
      after(async () => {
        if (taken !== undefined) await server.release(taken);
      });
      tests(() => {
        if (taken === undefined) throw new TypeError('no cluster is running');
        return taken;
      });
    });
  }
}

interface Server {
  take(programs: ClusterBinaries): Promise<Cluster>;
  release(cluster: Cluster): Promise<void>;
}

function separate(apiserverFlags: readonly string[] = []): Server {
  return {
    take: (programs) => startCluster(programs, apiserverFlags),
    release: async (cluster) => {
      await cluster[Symbol.asyncDispose]();
    },
  };
}

/** By version, until the process has run its tests. */
const started = new Map<string, { readonly cluster: Cluster; readonly atStart: StoredState }>();

const shared: Server = {
  take: async (programs) => {
    const { cluster, atStart } = started.get(programs.version) ?? (await startShared(programs));
    await restoreStoredState(cluster.etcd, cluster.admin, atStart);
    // kubectl keeps for ten minutes which kinds a server has.
    await rm(join(cluster.folder, '.kube'), { recursive: true, force: true });
    return cluster;
  },
  release: () => Promise.resolve(),
};

async function startShared(programs: ClusterBinaries) {
  await using starting = new AsyncDisposableStack();
  const cluster = starting.use(await startCluster(programs));
  const server = { cluster, atStart: await readStoredState(cluster.etcd, cluster.admin) };
  started.set(programs.version, server);
  starting.move();
  return server;
}

after(async () => {
  for (const { cluster } of started.values()) await cluster[Symbol.asyncDispose]();
});
