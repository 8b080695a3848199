/**
 * The cgroups and the BPF file system of a lab's node: pods in the kubelet's layout, all below one
 * folder that the lab makes in the cgroup2 tree, so that programs are attached to nothing else. The
 * next lab sweeps the leftovers of killed labs.
 */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { findCgroupRoot } from '../../src/redirect/cgroup/cgroup-tree.ts';
import { isAlive } from './process-alive.ts';

export interface LabCgroups extends Disposable {
  /** Passed to the agent as the root of the tree. */
  readonly root: string;
  /** The agent's folder for BPF pins. */
  readonly pinFolder: string;
  /** Makes a pod's cgroup and a container's below it; returns the container's folder. */
  addPod(uid: string): string;
  /** Moves a container to another pod and removes the old pod; returns the container's folder. */
  movePod(container: string, uid: string): string;
  /** Fails while a process runs in it. */
  removePod(uid: string): void;
}

const rootPattern = /^nmi-lab-(\d+)$/;
const folderPattern = /^nmi-bpf-(\d+)-[A-Za-z0-9]{6}$/;
/** A killed process stays in its cgroup for some milliseconds. */
const removeTries = 50;

/** @throws RedirectError without a cgroup2 mount; the error of `mkdir` without permission. */
export function openLabCgroups(): LabCgroups {
  const tree = findCgroupRoot();
  sweep(tree);
  const root = join(tree, `nmi-lab-${process.pid}`);
  mkdirSync(join(root, 'kubepods'), { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), `nmi-bpf-${process.pid}-`));
  // An agent may run as another user.
  chmodSync(folder, 0o711);
  const mounted = join(folder, 'fs');
  mkdirSync(mounted);
  execFileSync('mount', ['-t', 'bpf', '-o', 'mode=711', 'bpf', mounted]);
  const podFolder = (uid: string): string => join(root, 'kubepods', `pod${uid}`);
  const addPod = (uid: string): string => {
    const container = join(podFolder(uid), randomBytes(32).toString('hex'));
    mkdirSync(container, { recursive: true });
    return container;
  };
  return {
    root,
    pinFolder: join(mounted, 'nmi'),
    addPod,
    movePod: (from, uid) => {
      const container = addPod(uid);
      for (const pid of readFileSync(join(from, 'cgroup.procs'), 'latin1').trim().split('\n')) {
        writeFileSync(join(container, 'cgroup.procs'), pid);
      }
      removeCgroup(dirname(from));
      return container;
    },
    removePod: (uid) => {
      removeCgroup(podFolder(uid));
    },
    [Symbol.dispose]: () => {
      removeMounted(folder);
      removeCgroup(root);
    },
  };
}

/** The command line that starts a program inside a cgroup from its first instruction. */
export function inCgroup(cgroup: string, words: readonly string[]): readonly [string, ...string[]] {
  return ['sh', '-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup, ...words];
}

function sweep(tree: string): void {
  for (const name of readdirSync(tree)) {
    if (isDead(rootPattern, name)) removeCgroup(join(tree, name));
  }
  for (const name of readdirSync(tmpdir())) {
    if (isDead(folderPattern, name)) removeMounted(join(tmpdir(), name));
  }
}

function isDead(pattern: RegExp, name: string): boolean {
  const pid = Number(pattern.exec(name)?.[1]);
  return !Number.isNaN(pid) && !isAlive(pid);
}

/** Pins disappear with the last file system that has them, and the programs with their pins. */
function removeMounted(folder: string): void {
  try {
    execFileSync('umount', [join(folder, 'fs')], { stdio: 'ignore' });
  } catch {
    // Not mounted any more; a busy one makes the removal below fail.
  }
  rmSync(folder, { recursive: true, force: true });
}

/** Only `rmdir` removes cgroups; the innermost ones go first. */
export function removeCgroup(path: string): void {
  for (let left = removeTries; ; left--) {
    try {
      for (const entry of readdirSync(path, { withFileTypes: true })) {
        if (entry.isDirectory()) removeCgroup(join(path, entry.name));
      }
      rmdirSync(path);
      return;
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY' || left === 0) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}
