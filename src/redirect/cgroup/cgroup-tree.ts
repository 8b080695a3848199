/**
 * The cgroup2 tree of the node as files: where it is mounted, where pods are in it, which cgroup
 * this process is in, and what lies below a pod. A cgroup's id is the inode of its folder.
 *
 * Looking for what is below one pod is bounded and needs nothing but permission to search folders,
 * which everybody has. The other way, from an id straight to its path by `open_by_handle_at`, needs
 * CAP_DAC_READ_SEARCH, and with it the right to read every file of the node.
 */
import { opendirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  isQosClass,
  parsePodCgroup,
  podCgroupPaths,
  PODS_ROOTS,
  type PodCgroup,
} from './cgroup.ts';
import { RedirectError } from '../redirect.ts';

/** A mount of the cgroup2 tree. */
export interface CgroupMount {
  readonly path: string;
  /** Which part of the tree is mounted, as seen from this process's cgroup namespace. */
  readonly root: string;
}

/** Reads `/proc/PID/mountinfo`. Never throws; linear in the text. */
export function parseCgroupMounts(mountinfo: string): readonly CgroupMount[] {
  return mountinfo.split('\n').flatMap((line) => {
    // id parent major:minor root path options [tags...] - type source options
    const [before = '', after = ''] = line.split(' - ', 2);
    const [, , , root, path] = before.split(' ');
    if (root === undefined || path === undefined || !after.startsWith('cgroup2 ')) return [];
    return [{ path: unescapeMount(path), root: unescapeMount(root) }];
  });
}

/** Blanks, tabs, newlines and backslashes are written as three octal digits. */
function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** The id of a cgroup; undefined where there is none. */
export function cgroupIdOf(path: string): bigint | undefined {
  try {
    const { ino } = statSync(path, { bigint: true });
    return ino;
  } catch {
    return undefined;
  }
}

const ROOT_CGROUP_ID = 1n;

/**
 * The folder of the whole tree: mounted from its real root if there is such a mount (a container
 * may have a mount of its own part besides), else the first mount.
 * @throws RedirectError `UNSUPPORTED` without a cgroup2 mount.
 */
export function findCgroupRoot(mountinfo = readProc('mountinfo')): string {
  const path = wholeOf(parseCgroupMounts(mountinfo));
  if (path !== undefined) return path;
  throw new RedirectError('UNSUPPORTED', 'find cgroups', 'no cgroup2 tree is mounted');
}

function wholeOf(mounts: readonly CgroupMount[]): string | undefined {
  return (mounts.find(({ path }) => cgroupIdOf(path) === ROOT_CGROUP_ID) ?? mounts[0])?.path;
}

/**
 * The folder of the tree, for who may have named one. Where versions 1 and 2 are side by side, the
 * usual place is a folder of mounts, and the tree is one of them.
 * @throws RedirectError `UNSUPPORTED` where there is none.
 */
export function resolveCgroupRoot(named: string | undefined, mountinfo?: string): string {
  if (named === undefined) return findCgroupRoot(mountinfo);
  if (isCgroup2(named)) return named;
  const above = named.endsWith('/') ? named : `${named}/`;
  const mounts = parseCgroupMounts(mountinfo ?? readProc('mountinfo'));
  const path = wholeOf(mounts.filter((mount) => mount.path.startsWith(above)));
  if (path !== undefined) return path;
  const message = `no cgroup2 tree is at ${named} or mounted below it`;
  throw new RedirectError('UNSUPPORTED', 'find cgroups', message);
}

const CGROUP2_MAGIC = 0x63677270;

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === CGROUP2_MAGIC;
  } catch {
    return false;
  }
}

/** The folder of all pods below a root of the tree; undefined while the kubelet has made none. */
export function findPodsRoot(cgroupRoot: string): string | undefined {
  return PODS_ROOTS.map((path) => join(cgroupRoot, path)).find(
    (path) => cgroupIdOf(path) !== undefined,
  );
}

/** The ids of the cgroups below a root of pods that hold the pods of a QoS class, by name. */
export function qosClassIds(podsRoot: string): readonly bigint[] {
  return listChildren(podsRoot, '.')
    .filter(({ path }) => isQosClass(basename(path)))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1))
    .map(({ id }) => id);
}

/**
 * The id of the cgroup that this process is in; undefined when it cannot be told: in a container
 * that sees only other parts of the tree.
 */
export function ownCgroupId(
  membership = readProc('cgroup'),
  mountinfo = readProc('mountinfo'),
): bigint | undefined {
  const own = /^0::(\/.*)$/m.exec(membership)?.[1];
  if (own === undefined) return undefined;
  const mounts = parseCgroupMounts(mountinfo);
  for (const { path, root } of mounts) {
    if (root === '/') return cgroupIdOf(join(path, own));
    if (own === root || own.startsWith(`${root}/`)) {
      return cgroupIdOf(join(path, own.slice(root.length)));
    }
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

/** The ids of a folder's parents in the tree, nearest first. */
export function ancestorIds(path: string): readonly bigint[] {
  const ids: bigint[] = [];
  const { dev } = statSync(path);
  for (let at = join(path, '..'); ; at = join(at, '..')) {
    const folder = statSync(at, { bigint: true });
    if (Number(folder.dev) !== dev) return ids;
    ids.push(folder.ino);
    if (folder.ino === ROOT_CGROUP_ID || at === '/') return ids;
  }
}

/** Levels and folders of a tree that is walked as a whole: many times what a full node has. */
const MAX_WALK_DEPTH = 16;
const MAX_WALK = 65_536;

/** A cgroup and all below it, except those below one of `except`. */
export function listCgroupIds(path: string, except: readonly bigint[]): ReadonlySet<bigint> {
  const own = cgroupIdOf(path);
  const found = new Set<bigint>();
  let level = own === undefined ? [] : [{ path: '.', id: own }];
  for (let depth = 0; depth <= MAX_WALK_DEPTH && level.length > 0; depth += 1) {
    level = level.filter(({ id }) => !except.includes(id));
    for (const { id } of level) found.add(id);
    if (found.size >= MAX_WALK) break;
    level = level.flatMap((parent) => [...listChildren(path, parent.path)]);
  }
  return found;
}

/** One cgroup of a pod. */
export interface FoundCgroup extends PodCgroup {
  readonly id: bigint;
}

/** Levels below the pod's own cgroup that are looked at: container, and what it makes itself. */
const MAX_DEPTH = 5;
/** Cgroups of one pod. A pod that may make cgroups could make any number. */
const MAX_CGROUPS = 512;

/**
 * The cgroup of a pod and those below it, containers before what they made; empty for an unknown
 * pod. Bounded in depth and number; about 0.1 ms for a pod of three containers.
 */
export function listPodCgroups(podsRoot: string, podUid: string): readonly FoundCgroup[] {
  for (const path of podCgroupPaths(basename(podsRoot), podUid)) {
    const id = cgroupIdOf(join(podsRoot, path));
    if (id !== undefined) return listBelow(podsRoot, path, id);
  }
  return [];
}

function listBelow(podsRoot: string, podPath: string, podId: bigint): readonly FoundCgroup[] {
  const found: FoundCgroup[] = [];
  let level: readonly { readonly path: string; readonly id: bigint }[] = [
    { path: podPath, id: podId },
  ];
  for (let depth = 0; depth <= MAX_DEPTH && level.length > 0; depth += 1) {
    for (const { path, id } of level) {
      const pod = parsePodCgroup(path);
      if (pod === undefined) continue;
      if (found.length === MAX_CGROUPS) return found;
      found.push({ id, ...pod });
    }
    // What a pod may make any number of is read no further than it is looked at.
    const below: (typeof level)[number][] = [];
    for (const { path } of level) {
      const left = MAX_CGROUPS - found.length - below.length;
      if (left > 0) below.push(...listChildren(podsRoot, path, left));
    }
    level = below;
  }
  return found;
}

/** @param most folders that are read. */
function listChildren(
  podsRoot: string,
  path: string,
  most = Infinity,
): readonly { readonly path: string; readonly id: bigint }[] {
  const children: { readonly path: string; readonly id: bigint }[] = [];
  try {
    using folder = opendirSync(join(podsRoot, path), { bufferSize: 64 });
    while (children.length < most) {
      const entry = folder.readSync();
      if (entry === null) break;
      if (!entry.isDirectory()) continue;
      const child = `${path}/${entry.name}`;
      const id = cgroupIdOf(join(podsRoot, child));
      if (id !== undefined) children.push({ path: child, id });
    }
  } catch {
    // Gone since, as containers do.
  }
  return children;
}
