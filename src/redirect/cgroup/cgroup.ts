/**
 * Where the kubelet puts pods in the cgroup tree: names to pods, and pods to names. Pure text.
 *
 *     systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f0e_2a.slice/
 *                 cri-containerd-<id>.scope, crio-<id>.scope, docker-<id>.scope
 *     cgroupfs  kubepods/burstable/pod1f0e-2a/<id>
 *
 * Guaranteed pods lie directly below the root of pods. A container may have cgroups of its own
 * below. kind puts another level before: kubelet.slice/kubelet-kubepods.slice/...
 *
 * A path is read from the root of pods downwards and only the first pod counts: who may make
 * cgroups below its own (a cluster in a pod) may give them any name.
 */

/** A cgroup as part of a pod. */
export interface PodCgroup {
  /** As the kubelet knows it: for a static pod this is the hash of its file, not the UID it got. */
  readonly podUid: string;
  /** Absent for the pod's own cgroup, and for one whose name is not a runtime's. */
  readonly containerId: string | undefined;
}

/** Where the root of pods may lie below the root of the tree, in the order of looking. */
export const PODS_ROOTS = [
  'kubepods.slice',
  'kubepods',
  'kubelet.slice/kubelet-kubepods.slice',
  'kubelet/kubepods',
] as const;

const QUALITY = /^(?:(?:[a-z0-9_]+-)*kubepods-)?(?:besteffort|burstable)(?:\.slice)?$/;
const SYSTEMD_POD =
  /^(?:[a-z0-9_]+-)*kubepods(?:-besteffort|-burstable)?-pod([0-9a-z][0-9a-z_]{0,62})\.slice$/;
const CGROUPFS_POD = /^pod([0-9a-z][0-9a-z-]{0,62})$/;
const CONTAINER = /^(?:[a-z][a-z-]*-)?([0-9a-f]{12,64})(?:\.scope)?$/;

/** Whether a cgroup right below the root of pods holds the pods of a QoS class. */
export function isQosClass(name: string): boolean {
  return QUALITY.test(name);
}

/**
 * The pod that a cgroup belongs to.
 * @param path from the root of pods, without a leading slash.
 * @returns undefined for what is no pod's: the root, a class of quality, somebody's own making.
 */
export function parsePodCgroup(path: string): PodCgroup | undefined {
  const segments = path.split('/').filter((segment) => segment !== '');
  const at = isQosClass(segments[0] ?? '') ? 1 : 0;
  const podUid = parsePodName(segments[at] ?? '');
  if (podUid === undefined) return undefined;
  return { podUid, containerId: CONTAINER.exec(segments[at + 1] ?? '')?.[1] };
}

function parsePodName(name: string): string | undefined {
  // systemd reads a dash in a slice's name as a level of the tree, so the kubelet writes another mark.
  const escaped = SYSTEMD_POD.exec(name)?.[1];
  return escaped === undefined ? CGROUPFS_POD.exec(name)?.[1] : escaped.replaceAll('_', '-');
}

const POD_UID = /^[0-9a-z][0-9a-z-]{0,62}$/;

/**
 * The paths, from the root of pods, where a pod's cgroup may be.
 * @param podsRoot the last segment of the root's own path: it tells driver and prefix.
 * @returns none for a UID that is no single path segment.
 */
export function podCgroupPaths(podsRoot: string, podUid: string): readonly string[] {
  if (!POD_UID.test(podUid)) return [];
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
