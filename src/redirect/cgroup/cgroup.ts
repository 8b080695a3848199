/**
 * Paths of pods in the kubelet's cgroup tree. Pure.
 *
 *     systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f0e_2a.slice/
 *                 cri-containerd-<id>.scope, crio-<id>.scope, docker-<id>.scope
 *     cgroupfs  kubepods/burstable/pod1f0e-2a/<id>
 *
 * Guaranteed pods are directly below the folder of pods. A container may create cgroups below its own.
 * kind adds a level above: kubelet.slice/kubelet-kubepods.slice/...
 *
 * A pod that can create cgroups (a cluster in a pod) can give them any name, so a cgroup belongs to the
 * pod whose path it is below, whatever its own name.
 */

/** Possible paths of the folder of pods below the root of the tree, in order of search. */
export const podsRoots = [
  'kubepods.slice',
  'kubepods',
  'kubelet.slice/kubelet-kubepods.slice',
  'kubelet/kubepods',
] as const;

const qosClasses = ['besteffort', 'burstable'] as const;

/** The cgroups of the QoS classes, directly below the folder of pods. */
export function qosClassPaths(podsRoot: string): readonly string[] {
  return qosClasses.map((name) => pathBelow(podsRoot, name));
}

const podUidPattern = /^[0-9a-z][0-9a-z-]{0,62}$/;

/** The possible paths of a pod's cgroup: none for a UID that is not a single path segment. */
export function podCgroupPaths(podsRoot: string, podUid: string): readonly string[] {
  if (!podUidPattern.test(podUid)) return [];
  return [...qosClassPaths(podsRoot), podsRoot].map((path) => pathBelow(path, `pod${podUid}`));
}

/** The name of a folder determines the driver, and the prefix of those below it. */
function pathBelow(folder: string, name: string): string {
  const [, prefix] = /([^/]*)\.slice$/.exec(folder) ?? [];
  if (prefix === undefined) return `${folder}/${name}`;
  return `${folder}/${prefix}-${name.replaceAll('-', '_')}.slice`;
}
