/**
 * The programs of a test cluster: etcd, kube-apiserver and kubectl of two minor versions of
 * Kubernetes, and helm. They come from the folder that KUBEBUILDER_ASSETS names, or are built once
 * from their modules into the tests' cache. Without either there are none, which is not a failure.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { GoModule } from './go-module.ts';
import { providePrograms, type GoRecipe, type Provided, type Siblings } from './go-programs.ts';

interface KubernetesRelease {
  readonly minor: string;
  readonly module: GoModule;
  readonly siblings: Siblings;
}

export const newest: KubernetesRelease = {
  minor: '1.37',
  module: {
    path: 'k8s.io/kubernetes',
    version: 'v1.37.2',
    sum: 'h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=',
  },
  siblings: {
    version: 'v0.37.2',
    sha256: 'f5c22e4e956598fbe6256ac352f33cfe6723e526a19e672767cf74cfd4aedab1',
  },
};
/** Three minors older. */
const oldest: KubernetesRelease = {
  minor: '1.34',
  module: {
    path: 'k8s.io/kubernetes',
    version: 'v1.34.4',
    sum: 'h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk=',
  },
  siblings: {
    version: 'v0.34.4',
    sha256: 'f8c671fa1c217be6d9378f1e9ad5e702d0638562b9fd3f5e92ff5ce5187c0a11',
  },
};

const helm: GoRecipe = {
  name: 'helm',
  module: {
    path: 'helm.sh/helm/v4',
    version: 'v4.3.1',
    sum: 'h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g=',
  },
  programs: { helm: 'helm.sh/helm/v4/cmd/helm' },
  stamps: ['helm.sh/helm/v4/internal/version.version=v4.3.1'],
};

const registry: GoRecipe = {
  name: 'registry',
  module: {
    path: 'github.com/distribution/distribution/v3',
    version: 'v3.1.2',
    sum: 'h1:/Bv2YIqqSR00HiO49FT93hovy6r9IlrzwUDsJjCN5qg=',
  },
  programs: { registry: 'github.com/distribution/distribution/v3/cmd/registry' },
};

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
  return assets === '' ? provideRelease(newest) : given(assets);
}

/** Undefined if the user requested one version. */
export function provideOlderCluster(): Provided<ClusterBinaries> | undefined {
  const assets = process.env['KUBEBUILDER_ASSETS'] ?? '';
  return assets === '' ? provideRelease(oldest) : undefined;
}

function provideRelease(release: KubernetesRelease): Provided<ClusterBinaries> {
  const recipe = kubernetesRecipe(release, {
    etcd: 'go.etcd.io/etcd/server/v3',
    'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
    kubectl: 'k8s.io/kubernetes/cmd/kubectl',
  });
  return providePrograms(`Kubernetes ${release.minor}`, recipe, cache, (folder) =>
    programsIn(folder, release.minor),
  );
}

/** Path of helm. It is not among KUBEBUILDER_ASSETS, so it is always built. */
export function provideHelm(): Provided<string> {
  return providePrograms('helm', helm, cache, (folder) => join(folder, 'helm'));
}

/** Path of the registry that others run too: distribution's. */
export function provideRegistry(): Provided<string> {
  return providePrograms('a registry', registry, cache, (folder) => join(folder, 'registry'));
}

function given(folder: string): Provided<ClusterBinaries> {
  const program = join(folder, 'kube-apiserver');
  const { stdout, error } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  const version = /v(\d+\.\d+)\./.exec(stdout)?.[1];
  // The user requested exactly these.
  if (version === undefined) throw new Error(`${program}: ${error?.message ?? stdout}`);
  const programs = programsIn(folder, version);
  return { name: `Kubernetes ${version}`, programs, missing: undefined };
}

function programsIn(folder: string, version: string): ClusterBinaries {
  return {
    version,
    etcd: join(folder, 'etcd'),
    kubeApiserver: join(folder, 'kube-apiserver'),
    kubectl: join(folder, 'kubectl'),
  };
}

export function kubernetesRecipe(
  { minor, module, siblings }: KubernetesRelease,
  programs: GoRecipe['programs'],
): GoRecipe {
  // Without them a server reports v0.0.0, and clients compare versions.
  const [majorNumber = '', minorNumber = ''] = minor.split('.');
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap(
    (path) => [
      `${path}.gitVersion=${module.version}`,
      `${path}.gitMajor=${majorNumber}`,
      `${path}.gitMinor=${minorNumber}`,
    ],
  );
  return { name: `kubernetes-${minor}`, module, siblings, programs, stamps };
}
