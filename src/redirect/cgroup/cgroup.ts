/**
 * Paths of pods in the kubelet's cgroup tree: from paths to pods, and from pods to paths. Pure.
 *
 *     systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f0e_2a.slice/
 *                 cri-containerd-<id>.scope, crio-<id>.scope, docker-<id>.scope
 *     cgroupfs  kubepods/burstable/pod1f0e-2a/<id>
 *
 * Guaranteed pods are directly below the folder of pods. A container may create cgroups below its own.
 * kind adds a level above: kubelet.slice/kubelet-kubepods.slice/...
 *
 * A path is read downwards from the folder of pods, and only the first pod counts: a pod that can create
 * cgroups (a cluster in a pod) can give them any name.
 */

/** A cgroup of a pod. */
export interface PodCgroup {
  /** The UID in the cgroup's name: for a static pod the hash of its file, not the UID of its API object. */
  readonly podUid: string;
  /** Undefined for the pod's own cgroup, and for a name that no container runtime uses. */
  readonly containerId: string | undefined;
}

/** Possible paths of the folder of pods below the root of the tree, in order of search. */
export const podsRoots = [
  'kubepods.slice',
  'kubepods',
  'kubelet.slice/kubelet-kubepods.slice',
  'kubelet/kubepods',
] as const;

const qosClassName = /^(?:(?:[a-z0-9_]+-)*kubepods-)?(?:besteffort|burstable)(?:\.slice)?$/;
const systemdPod =
  /^(?:[a-z0-9_]+-)*kubepods(?:-besteffort|-burstable)?-pod([0-9a-z][0-9a-z_]{0,62})\.slice$/;
const cgroupfsPod = /^pod([0-9a-z][0-9a-z-]{0,62})$/;
const containerName = /^(?:[a-z][a-z-]*-)?([0-9a-f]{12,64})(?:\.scope)?$/;

/** Whether a cgroup directly below the folder of pods belongs to a QoS class. */
export function isQosClass(name: string): boolean {
  return qosClassName.test(name);
}

/**
 * The pod that a cgroup belongs to.
 * @param path from the folder of pods, without a leading slash.
 * @returns undefined for any other cgroup: the folder of pods itself, a QoS class, an unknown name.
 */
export function parsePodCgroup(path: string): PodCgroup | undefined {
  const segments = path.split('/').filter((segment) => segment !== '');
  const at = isQosClass(segments[0] ?? '') ? 1 : 0;
  const podUid = parsePodName(segments[at] ?? '');
  if (podUid === undefined) return undefined;
  return { podUid, containerId: containerName.exec(segments[at + 1] ?? '')?.[1] };
}

function parsePodName(name: string): string | undefined {
  // A dash in the name of a slice separates levels for systemd, so the kubelet writes underscores.
  const escaped = systemdPod.exec(name)?.[1];
  return escaped === undefined ? cgroupfsPod.exec(name)?.[1] : escaped.replaceAll('_', '-');
}

const podUidPattern = /^[0-9a-z][0-9a-z-]{0,62}$/;

/**
 * The possible paths of a pod's cgroup, from the folder of pods.
 * @param podsRoot the last segment of that folder's path, which determines driver and prefix.
 * @returns none for a UID that is not a single path segment.
 */
export function podCgroupPaths(podsRoot: string, podUid: string): readonly string[] {
  if (!podUidPattern.test(podUid)) return [];
  if (!podsRoot.endsWith('.slice')) {
    return [`burstable/pod${podUid}`, `besteffort/pod${podUid}`, `pod${podUid}`];
  }
  const prefix = podsRoot.slice(0, -'.slice'.length);
  const name = `pod${podUid.replaceAll('-', '_')}.slice`;
  return [
    `${prefix}-burstable.slice/${prefix}-burstable-${name}`,
    `${prefix}-besteffort.slice/${prefix}-besteffort-${name}`,
    `${prefix}-${name}`,
  ];
}
