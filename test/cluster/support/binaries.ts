/**
 * The programs of a test cluster: etcd, kube-apiserver and kubectl of two minor versions of
 * Kubernetes, and helm. They come from the folder that KUBEBUILDER_ASSETS names, or are built once
 * from the locked modules in `test/cluster/go` into `.cache/cluster`. Without either there are
 * none, which is no failure.
 */
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';

/** The newest supported minor version, and the one three minors older. */
const versions = ['1.37', '1.34'] as const;

export interface ClusterBinaries {
  /** Minor version of Kubernetes. */
  readonly version: string;
  readonly etcd: string;
  readonly kubeApiserver: string;
  readonly kubectl: string;
}

/** Programs, or why there are none. */
export type Provided<T> =
  | { readonly name: string; readonly programs: T; readonly missing: undefined }
  | { readonly name: string; readonly programs: undefined; readonly missing: string };

const modules = join(import.meta.dirname, '../go');
const cache = join(import.meta.dirname, '../../../.cache/cluster');

/** A cold build takes 15 minutes on two cores. */
const buildTimeoutMs = 3_600_000;
const loadTimeoutMs = 600_000;

/** Builds all that is not there yet, and says loudly which tests there will not be. */
export function prepareBinaries(): void {
  for (const { name, missing } of [...provideClusters(), provideHelm()]) {
    if (missing !== undefined) process.stderr.write(`SKIPPED: all tests on ${name}: ${missing}\n`);
  }
}

/** One entry a version, newest first. Building takes minutes and says so on standard error. */
export function provideClusters(): readonly Provided<ClusterBinaries>[] {
  const assets = process.env['KUBEBUILDER_ASSETS'] ?? '';
  if (assets !== '') return [given(assets)];
  return versions.map((version) =>
    built(`Kubernetes ${version}`, kubernetesRecipe(version), (folder) =>
      programsIn(folder, version),
    ),
  );
}

/** Its path. It is not among KUBEBUILDER_ASSETS, so always built. */
export function provideHelm(): Provided<string> {
  return built('helm', helmRecipe, (folder) => join(folder, 'helm'));
}

function given(folder: string): Provided<ClusterBinaries> {
  const program = join(folder, 'kube-apiserver');
  const { stdout, error } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  const version = /v(\d+\.\d+)\./.exec(stdout)?.[1];
  // Somebody asked for exactly these.
  if (version === undefined) throw new Error(`${program}: ${error?.message ?? stdout}`);
  return {
    name: `Kubernetes ${version}`,
    programs: programsIn(folder, version),
    missing: undefined,
  };
}

function programsIn(folder: string, version: string): ClusterBinaries {
  return {
    version,
    etcd: join(folder, 'etcd'),
    kubeApiserver: join(folder, 'kube-apiserver'),
    kubectl: join(folder, 'kubectl'),
  };
}

interface Recipe {
  /** Folder below `test/cluster/go`. */
  readonly module: string;
  /** Main packages by the names their programs get. */
  readonly programs: Readonly<Record<string, string>>;
  /** Variables that the linker sets, of the version as `go.mod` has it. */
  readonly stamps: (goMod: string) => readonly string[];
}

function kubernetesRecipe(version: string): Recipe {
  return {
    module: `kubernetes-${version}`,
    programs: {
      etcd: 'go.etcd.io/etcd/server/v3',
      'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
      kubectl: 'k8s.io/kubernetes/cmd/kubectl',
    },
    // Without them the server calls itself v0.0.0, and clients compare versions.
    stamps(goMod) {
      const full = /k8s\.io\/kubernetes (v\S+)/.exec(goMod)?.[1] ?? '';
      const [major = '', minor = ''] = version.split('.');
      return ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((path) => [
        `${path}.gitVersion=${full}`,
        `${path}.gitMajor=${major}`,
        `${path}.gitMinor=${minor}`,
      ]);
    },
  };
}

const helmRecipe: Recipe = {
  module: 'helm',
  programs: { helm: 'helm.sh/helm/v4/cmd/helm' },
  stamps: (goMod) => {
    const version = /helm\.sh\/helm\/v4 (v\S+)/.exec(goMod)?.[1] ?? '';
    return [`helm.sh/helm/v4/internal/version.version=${version}`];
  },
};

function built<T>(name: string, recipe: Recipe, place: (folder: string) => T): Provided<T> {
  const sources = join(modules, recipe.module);
  const [goMod, goSum] = ['go.mod', 'go.sum'].map((file) =>
    readFileSync(join(sources, file), 'utf8'),
  );
  const stamps = recipe.stamps(goMod ?? '').map((stamp) => `-X ${stamp}`);
  const flags = [
    ...['-mod=readonly', '-trimpath', '-buildvcs=false'],
    `-ldflags=${['-s', '-w', ...stamps].join(' ')}`,
  ];
  const key = createHash('sha256')
    .update([goMod, goSum, ...flags, process.platform, process.arch].join('\0'))
    .digest('hex');
  const folder = join(cache, `${recipe.module}-${key.slice(0, 12)}`);
  const missing = existsSync(folder) ? undefined : build(recipe, flags, folder);
  return missing === undefined
    ? { name, programs: place(folder), missing }
    : { name, programs: undefined, missing };
}

/** Returns why nothing can be built here; throws when what was downloaded does not build. */
function build({ module, programs }: Recipe, flags: readonly string[], folder: string) {
  const sources = ['-C', join(modules, module)];
  const packages = Object.values(programs);
  if (spawnSync('go', ['version']).error !== undefined) return 'go is not installed';
  const loaded = go(['list', ...sources, '-mod=readonly', '-deps', ...packages], loadTimeoutMs);
  if (loaded.status !== 0) return `go cannot load the modules of ${module}: ${reasonOf(loaded)}`;
  const names = `${Object.keys(programs).join(', ')} (${module})`;
  process.stderr.write(`building ${names}; this takes minutes, once\n`);
  const startedMs = performance.now();
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, `.${module}-`));
  try {
    for (const [name, path] of Object.entries(programs)) {
      const made = go(
        ['build', ...sources, ...flags, '-o', join(work, name), path],
        buildTimeoutMs,
      );
      if (made.status !== 0) throw new Error(`go cannot build ${path}: ${reasonOf(made)}`);
    }
    for (const name of readdirSync(cache)) {
      if (name.startsWith(`${module}-`)) rmSync(join(cache, name), { recursive: true });
    }
    // Made aside and renamed, so that what is there is whole.
    renameSync(work, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  process.stderr.write(`built ${names} in ${seconds} s\n`);
  return undefined;
}

/** With the lowest priority: all cores are busy for minutes. */
function go(args: readonly string[], timeout: number): SpawnSyncReturns<string> {
  return spawnSync('nice', ['-n', '19', 'go', ...args], {
    encoding: 'utf8',
    timeout,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, CGO_ENABLED: '0' },
  });
}

function reasonOf({ error, stderr }: SpawnSyncReturns<string>): string {
  if (error !== undefined) return error.message;
  const lines = stderr.trim().split('\n');
  return lines
    .filter((line) => !line.startsWith('go: downloading'))
    .slice(0, 3)
    .join('; ');
}
