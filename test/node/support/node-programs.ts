/** The programs of a Kubernetes node, of the newest supported version. */
import {
  kubernetesRecipe,
  newest,
  provideCluster,
  provideHelm,
} from '../../cluster/support/binaries.ts';
import { providePrograms, type Provided } from '../../cluster/support/go-programs.ts';
import { dirname } from 'node:path';

export interface NodePrograms {
  /** Folder with etcd, kube-apiserver and kubectl. */
  readonly cluster: string;
  /** Folder with kubelet, kube-controller-manager, kube-scheduler and kube-proxy. */
  readonly kubernetes: string;
  readonly kubectl: string;
  readonly helm: string;
}

const programs = ['kubelet', 'kube-controller-manager', 'kube-scheduler', 'kube-proxy'];
const recipe = {
  ...kubernetesRecipe(
    newest,
    Object.fromEntries(programs.map((name) => [name, `k8s.io/kubernetes/cmd/${name}`])),
  ),
  patches: [
    {
      // Where the controllers are on cgroup v1, the cgroup2 tree has none of their files.
      module: 'github.com/opencontainers/cgroups',
      file: 'file.go',
      before: `	fd, err := OpenFile(dir, file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer fd.Close()
	if _, err := fd.WriteString(data); err != nil {`,
      after: `	fd, err := OpenFile(dir, file, unix.O_WRONLY)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fd.Close()
	if _, err := fd.WriteString(data); err != nil {`,
    },
  ],
};

export function provideNodePrograms(): Provided<NodePrograms> {
  const name = 'a Kubernetes node';
  const cluster = provideCluster();
  const helm = provideHelm();
  const own = providePrograms(name, recipe, 'node', (folder) => folder);
  const missing = own.missing ?? helm.missing ?? cluster.missing;
  if (missing !== undefined || cluster.programs?.version !== newest.minor) {
    return {
      name,
      programs: undefined,
      missing: missing ?? `there is no Kubernetes ${newest.minor}`,
    };
  }
  const { kubectl } = cluster.programs;
  return {
    name,
    missing: undefined,
    programs: {
      cluster: dirname(kubectl),
      kubernetes: own.programs ?? '',
      kubectl,
      helm: helm.programs ?? '',
    },
  };
}
