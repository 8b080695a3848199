/**
 * The programs of a test cluster: etcd, kube-apiserver and kubectl of two minor versions of
 * Kubernetes, and helm. They come from the folder that KUBEBUILDER_ASSETS names, or are built once
 * from the locked modules in `test/cluster/go` into the tests' cache. Without either there are none,
 * which is not a failure.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { providePrograms, type GoRecipe, type Provided } from './go-programs.ts';

/** The newest supported minor version. */
const newest = '1.37';
/** The oldest one, three minors older. */
const oldest = '1.34';

/** Folder in the tests' cache. */
const cache = 'cluster';

export interface ClusterBinaries {
  /** Minor version of Kubernetes. */
  readonly version: string;
  readonly etcd: string;
  readonly kubeApiserver: string;
  readonly kubectl: string;
}

/** A cluster of the newest version. */
export function provideCluster(): Provided<ClusterBinaries> {
  const assets = process.env['KUBEBUILDER_ASSETS'] ?? '';
  return assets === '' ? provideVersion(newest) : given(assets);
}

/** Undefined if the user requested one version. */
export function provideOlderCluster(): Provided<ClusterBinaries> | undefined {
  const assets = process.env['KUBEBUILDER_ASSETS'] ?? '';
  return assets === '' ? provideVersion(oldest) : undefined;
}

function provideVersion(version: string): Provided<ClusterBinaries> {
  return providePrograms(`Kubernetes ${version}`, kubernetesRecipe(version), cache, (folder) =>
    programsIn(folder, version),
  );
}

/** Path of helm. It is not among KUBEBUILDER_ASSETS, so it is always built. */
export function provideHelm(): Provided<string> {
  return providePrograms('helm', helmRecipe, cache, (folder) => join(folder, 'helm'));
}

/** Path of the registry that others run too: distribution's. */
export function provideRegistry(): Provided<string> {
  return providePrograms('a registry', registryRecipe, cache, (folder) => join(folder, 'registry'));
}

function given(folder: string): Provided<ClusterBinaries> {
  const program = join(folder, 'kube-apiserver');
  const { stdout, error } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  const version = /v(\d+\.\d+)\./.exec(stdout)?.[1];
  // The user requested exactly these.
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

function kubernetesRecipe(version: string): GoRecipe {
  return {
    module: `kubernetes-${version}`,
    programs: {
      etcd: 'go.etcd.io/etcd/server/v3',
      'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
      kubectl: 'k8s.io/kubernetes/cmd/kubectl',
    },
    stamps: kubernetesStamps(version),
  };
}

/** Without them a server reports v0.0.0, and clients compare versions. */
export function kubernetesStamps(version: string): GoRecipe['stamps'] {
  return (goMod) => {
    const full = /k8s\.io\/kubernetes (v\S+)/.exec(goMod)?.[1] ?? '';
    const [major = '', minor = ''] = version.split('.');
    return ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((path) => [
      `${path}.gitVersion=${full}`,
      `${path}.gitMajor=${major}`,
      `${path}.gitMinor=${minor}`,
    ]);
  };
}

const helmRecipe: GoRecipe = {
  module: 'helm',
  programs: { helm: 'helm.sh/helm/v4/cmd/helm' },
  stamps: (goMod) => {
    const version = /helm\.sh\/helm\/v4 (v\S+)/.exec(goMod)?.[1] ?? '';
    return [`helm.sh/helm/v4/internal/version.version=${version}`];
  },
};

const registryRecipe: GoRecipe = {
  module: 'registry',
  programs: { registry: 'github.com/distribution/distribution/v3/cmd/registry' },
  stamps: () => [],
};
