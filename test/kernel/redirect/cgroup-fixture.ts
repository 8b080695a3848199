/**
 * Cgroups, a BPF file system and a dialling program for the kernel tests: all below folders that
 * the test makes. Nothing is attached to a cgroup that existed before.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { networkCode } from '../../../src/base/network-code.ts';
import { findCgroupRoot } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { findRefusal } from '../../../src/redirect/ebpf/programs.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';
import { freshNative } from '../../../scripts/native.ts';

const PREFIX = 'nmi-test-';
let made = 0;

/** Why programs cannot be loaded and attached here, or `false`. */
export function whyNoBpfTests(): string | false {
  if (process.getuid?.() !== 0) return 'not root';
  freshNative();
  return whyNoPrograms();
}

/**
 * Why this kernel takes no BPF program at all, or `false`. Programs that it takes and refuses for what
 * they are must fail the tests.
 */
export function whyNoPrograms(): string | false {
  try {
    findCgroupRoot();
    const refusal = findRefusal('/sys/fs/bpf/none');
    if (refusal === undefined) return false;
    const hasNone = networkCode(refusal.cause) === 'ENOSYS';
    return hasNone || refusal.code === 'NOT_PERMITTED' ? refusal.message : false;
  } catch (error) {
    if (error instanceof RedirectError) return error.message;
    throw error;
  }
}

/** Why a namespace that a test makes cannot replace the node's, or `false`. */
export function whyNoNode(): string | false {
  if (nativeModule().netnsCookie() !== 0n) return false;
  return 'before Linux 5.14 the programs take the initial network namespace alone for the node’s';
}

export interface CgroupTree {
  readonly path: string;
  /** Makes a cgroup and those above it; returns its path. */
  make(name: string): string;
  close(): void;
}

/** A separate tree of cgroups for this test. First removes the trees left by earlier runs. */
export function openCgroupTree(): CgroupTree {
  const root = findCgroupRoot();
  sweepDead(root);
  made += 1;
  const path = join(root, `${PREFIX}${process.pid}-${made}`);
  mkdirSync(path);
  return {
    path,
    make: (name) => {
      const cgroup = join(path, name);
      mkdirSync(cgroup, { recursive: true });
      return cgroup;
    },
    close: () => {
      removeTree(path);
    },
  };
}

function sweepDead(root: string): void {
  for (const name of readdirSync(root)) {
    const pid = Number(/^nmi-test-(\d+)-\d+$/.exec(name)?.[1]);
    if (!Number.isNaN(pid) && !isAlive(pid)) removeTree(join(root, name));
  }
}

/**
 * Cgroups have no files to delete, only folders, which can be removed only when empty of processes.
 */
function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(path, entry.name));
  }
  rmdirSync(path);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export interface BpfFolder {
  readonly path: string;
  /** Unmounts. This removes every pin, and detaches everything that was pinned. */
  close(): void;
}

export function openBpfFolder(): BpfFolder {
  sweepDeadMounts();
  const path = mkdtempSync(join(tmpdir(), `${PREFIX}bpf-${process.pid}-`));
  execFileSync('mount', ['-t', 'bpf', '-o', 'mode=711', 'bpf', path]);
  return {
    path,
    close: () => {
      execFileSync('umount', [path]);
      rmdirSync(path);
    },
  };
}

function sweepDeadMounts(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(/^nmi-test-bpf-(\d+)-/.exec(name)?.[1]);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    spawnSync('umount', [join(tmpdir(), name)]);
    rmdirSync(join(tmpdir(), name));
  }
}

export interface Dialler {
  readonly path: string;
  close(): void;
}

/** Compiles `dialler.c`, for the sockets that Node cannot make. */
export function buildDialler(): Dialler {
  const path = join(mkdtempSync(join(tmpdir(), `${PREFIX}dialler-`)), 'dialler');
  execFileSync('cc', ['-O1', '-o', path, join(import.meta.dirname, 'dialler.c')]);
  return {
    path,
    close: () => {
      rmSync(dirname(path), { recursive: true, force: true });
    },
  };
}
