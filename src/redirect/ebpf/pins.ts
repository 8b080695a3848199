/**
 * The folder in the BPF file system that holds everything of ours: what is pinned there stays in
 * the kernel when the process ends, and only what is pinned there is ours.
 *
 *     callers counters dials exempt loads settings   maps
 *     link_HOOK program_HOOK                         what is attached, and the program that should be
 *     next_...                                       under way; renamed over the former, or left by a crash
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statfsSync,
  unlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { outputOf, type Host } from '../host/command.ts';
import { RedirectError } from '../redirect.ts';

export const DEFAULT_PIN_FOLDER = '/sys/fs/bpf/nmi';

/** The maps that outlive their programs. */
export const SHARED_MAPS = ['callers', 'counters', 'dials', 'exempt', 'loads'] as const;

const BPF_FS_MAGIC = 0xcafe4a11;
const STEP = 'BPF file system';

export function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === BPF_FS_MAGIC;
  } catch {
    return false;
  }
}

/**
 * Makes the folder, mounting a BPF file system above it where there is none: a container has the
 * node's brought in, a bare machine without systemd has none yet.
 * @throws RedirectError
 */
export async function ensurePinFolder(host: Host, folder: string): Promise<void> {
  const above = dirname(folder);
  if (!isBpffs(above)) {
    const why = whyNoMountPoint(above);
    if (why !== undefined) throw new RedirectError('CONFLICT', STEP, why);
    const args = ['-t', 'bpf', '-o', 'nosuid,nodev,noexec,mode=711', 'bpf', above];
    outputOf(STEP, 'mount', await host.run('mount', args));
  }
  try {
    mkdirSync(folder, { mode: 0o755 });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw fileError(error);
  }
}

/** What keeps this process from pinning. */
export interface PinObstacle {
  readonly why: string;
  /** Somebody with more of them could. */
  readonly isWantOfRights: boolean;
}

/**
 * Why nothing can be pinned in the folder; undefined when it can. A security module may refuse what
 * permissions allow, so a folder beside it is made and taken away again.
 */
export function findPinObstacle(folder: string): PinObstacle | undefined {
  const above = dirname(folder);
  if (!isBpffs(above)) {
    const why = whyNoMountPoint(above);
    if (why !== undefined) return { why, isWantOfRights: false };
    if (canMount()) return undefined;
    const lacking = `no BPF file system at ${above}, nor CAP_SYS_ADMIN to mount one`;
    return { why: lacking, isWantOfRights: true };
  }
  const trial = `${folder}-trial-${process.pid}`;
  try {
    mkdirSync(trial);
    rmdirSync(trial);
    return undefined;
  } catch (error) {
    const code = codeOf(error) ?? 'unknown';
    return {
      why: `nothing can be pinned in ${above}: ${code}`,
      isWantOfRights: code === 'EACCES' || code === 'EPERM',
    };
  }
}

/** A mount would hide what is in a folder: by a slip of the option, anything. */
function whyNoMountPoint(path: string): string | undefined {
  const none = `no BPF file system at ${path}, nor `;
  try {
    return readdirSync(path).length === 0 ? undefined : `${none}an empty folder to mount one at`;
  } catch (error) {
    return `${none}a folder to mount one at: ${codeOf(error) ?? 'unknown'}`;
  }
}

const CAP_SYS_ADMIN = 21n;

function canMount(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return ((BigInt(`0x${effective?.[1] ?? '0'}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/** What is pinned, by name; nothing for a folder that is not there. @throws RedirectError */
export function listPins(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileError(error);
  }
}

/** Takes one pin away if it is there; returns whether it was. @throws RedirectError */
export function unpin(folder: string, name: string): boolean {
  try {
    unlinkSync(join(folder, name));
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw fileError(error);
  }
}

/** Puts `next_NAME` in the place of `NAME` in one step. @throws RedirectError */
export function promotePin(folder: string, name: string): void {
  try {
    renameSync(join(folder, `next_${name}`), join(folder, name));
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw fileError(error);
    throw new RedirectError('BUSY', STEP, 'another process installs at the same time', error);
  }
}

/** Takes the folder away once it is empty; a stranger's pin in it keeps it. @throws RedirectError */
export function removePinFolder(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    const code = codeOf(error);
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw fileError(error);
  }
}

function fileError(error: unknown): RedirectError {
  const code = codeOf(error);
  const isRefused = code === 'EPERM' || code === 'EACCES' || code === 'EROFS';
  const message = error instanceof Error ? error.message : 'unknown';
  return new RedirectError(isRefused ? 'NOT_PERMITTED' : 'KERNEL_REFUSED', STEP, message, error);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}
