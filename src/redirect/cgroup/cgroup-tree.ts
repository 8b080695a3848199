/**
 * The cgroup v2 tree of the node as files: its mount, the folder of pods, the cgroup of this process,
 * and the cgroups of pods. A cgroup's id is the inode number of its folder.
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
import { readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { RedirectError } from '../redirect.ts';

export interface CgroupMount {
  readonly path: string;
  /** The mounted part of the tree, as seen from this process's cgroup namespace. */
  readonly root: string;
}

/** Reads `/proc/PID/mountinfo`. Never throws; linear in the text. */
export function parseCgroupMounts(mountinfo: string): readonly CgroupMount[] {
  return mountinfo.split('\n').flatMap((line) => {
    // id parent major:minor root path options [tags...] - type source options
    const [before = '', after = ''] = line.split(' - ', 2);
    const [, , , root, path] = before.split(' ');
    if (root === undefined || path === undefined || !after.startsWith('cgroup2 ')) return [];
    return [{ path, root }];
  });
}

/** The id of a cgroup; undefined if it does not exist. */
export function cgroupIdOf(path: string): bigint | undefined {
  try {
    const { ino } = statSync(path, { bigint: true });
    return ino;
  } catch {
    return undefined;
  }
}

const rootCgroupId = 1n;

/**
 * The mount point of the tree: preferably a mount of the real root (a container may also have a mount of
 * its own part), else the first mount. If cgroup v1 and v2 are both mounted, the usual path is a folder of
 * mounts, one of which is the v2 tree.
 * @param named the tree is there or mounted below it; empty for any place.
 * @throws RedirectError `UNSUPPORTED` without a cgroup2 mount.
 */
export function findCgroupRoot(named = '', mountinfo?: string): string {
  if (isCgroup2(named)) return named;
  const above = named === '' || named.endsWith('/') ? named : `${named}/`;
  const all = parseCgroupMounts(mountinfo ?? readProc('mountinfo'));
  const mounts = all.filter(({ path }) => path.startsWith(above));
  const whole = mounts.find(({ path }) => cgroupIdOf(path) === rootCgroupId) ?? mounts[0];
  if (whole !== undefined) return whole.path;
  const message =
    named === ''
      ? 'no cgroup2 tree is mounted'
      : `no cgroup2 tree is at ${named} or mounted below it`;
  throw new RedirectError('UNSUPPORTED', 'find cgroups', message);
}

const cgroup2Magic = 0x63677270;

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === cgroup2Magic;
  } catch {
    return false;
  }
}

/** The folder of all pods below the root of the tree; undefined before the kubelet has created it. */
export function findPodsRoot(cgroupRoot: string): string | undefined {
  return podsRoots
    .map((path) => join(cgroupRoot, path))
    .find((path) => cgroupIdOf(path) !== undefined);
}

/**
 * The folder of this process's cgroup; undefined in a container that has only other parts of the tree
 * mounted.
 */
export function ownCgroupPath(
  membership = readProc('cgroup'),
  mountinfo = readProc('mountinfo'),
): string | undefined {
  const own = /^0::(\/.*)$/m.exec(membership)?.[1];
  if (own === undefined) return undefined;
  const mounts = parseCgroupMounts(mountinfo);
  for (const { path, root } of mounts) {
    if (root === '/') return join(path, own);
    if (own === root || own.startsWith(`${root}/`)) return join(path, own.slice(root.length));
  }
  return undefined;
}

function readProc(name: 'cgroup' | 'mountinfo'): string {
  try {
    return readFileSync(`/proc/self/${name}`, 'utf8');
  } catch (error) {
    throw new RedirectError('UNSUPPORTED', 'find cgroups', `/proc is not readable`, error);
  }
}

/** The ids of a folder's ancestors in the tree, nearest first. */
export function ancestorIds(path: string): readonly bigint[] {
  const ids: bigint[] = [];
  const { dev } = statSync(path);
  for (let at = join(path, '..'); ; at = join(at, '..')) {
    const folder = statSync(at, { bigint: true });
    if (Number(folder.dev) !== dev) return ids;
    ids.push(folder.ino);
    if (folder.ino === rootCgroupId || at === '/') return ids;
  }
}

/** The id of the cgroup of a pod itself; undefined before the kubelet has created it. */
export function podCgroupId(podsRoot: string, podUid: string): bigint | undefined {
  const path = podCgroupPath(podsRoot, podUid);
  return path === undefined ? undefined : cgroupIdOf(path);
}

/** The folder of the cgroup of a pod; undefined before the kubelet has created it. */
export function podCgroupPath(podsRoot: string, podUid: string): string | undefined {
  return podCgroupPaths(podsRoot, podUid).find((path) => cgroupIdOf(path) !== undefined);
}

/** Limits of a walk of the tree: many times the levels and folders of a full node. */
const maxDepth = 16;
const maxCgroups = 65_536;

/** The ids of a cgroup and its descendants, without `except` and their descendants. */
export function listCgroupIds(path: string, except: readonly bigint[]): readonly bigint[] {
  const found: bigint[] = [];
  const walk = (folder: string, depth: number): void => {
    const id = cgroupIdOf(folder);
    if (id === undefined || except.includes(id) || found.length >= maxCgroups) return;
    found.push(id);
    if (depth === maxDepth) return;
    for (const name of childrenOf(folder)) walk(join(folder, name), depth + 1);
  };
  walk(path, 0);
  return found;
}

function childrenOf(folder: string): readonly string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
  } catch {
    // The container has ended since its folder was listed.
    return [];
  }
}

/** Possible paths of the folder of pods below the root of the tree, in order of search. */
const podsRoots = [
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
