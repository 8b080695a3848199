/**
 * The agent's folder in the BPF file system. Objects that are pinned there outlive the process, and no
 * other object belongs to the agent.
 *
 *     callers counters dials exempt loads node_pods sequences settings   maps
 *     link_HOOK program_HOOK                         the attachment, and the program that should be attached
 *     link_getsockopt_ID                             the attachment to the cgroup of an agent
 *     next_...                                       incomplete; renamed when complete, or left by a crash
 */
import { mkdirSync, readdirSync, renameSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { networkCode } from '../../base/network-code.ts';
import { RedirectError } from '../redirect.ts';

export const defaultPinFolder = '/sys/fs/bpf/nmi';

/** Maps that successive programs share. */
export const sharedMaps = [
  'callers',
  'counters',
  'dials',
  'exempt',
  'loads',
  'node_pods',
  'sequences',
] as const;

const bpfFsMagic = 0xcafe4a11;
const pinStep = 'BPF file system';

export function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === bpfFsMagic;
  } catch {
    return false;
  }
}

/**
 * Creates the folder. The node mounts the BPF file system above it (systemd does): what a container mounted would end
 * with it.
 * @throws RedirectError
 */
export function ensurePinFolder(folder: string): void {
  const above = dirname(folder);
  if (!isBpffs(above)) {
    throw new RedirectError('CONFLICT', pinStep, `no BPF file system is mounted at ${above}`);
  }
  succeeds(() => mkdirSync(folder, { mode: 0o755 }), ['EEXIST']);
}

/**
 * Creates a folder beside it, and removes that: a security module may refuse what file permissions allow.
 * @throws RedirectError if this process cannot pin in the folder.
 */
export function tryPinFolder(folder: string): void {
  const trial = `${folder}-trial-${process.pid}`;
  ensurePinFolder(trial);
  removePinFolder(trial);
}

/** Names of all pins; empty if the folder does not exist. @throws RedirectError */
export function listPins(folder: string): readonly string[] {
  let names: readonly string[] = [];
  succeeds(() => (names = readdirSync(folder)), ['ENOENT']);
  return names;
}

/** Removes a pin; returns whether it existed. @throws RedirectError */
export function unpin(folder: string, name: string): boolean {
  return succeeds(() => unlinkSync(join(folder, name)), ['ENOENT']);
}

/** Renames `next_NAME` to `NAME`, atomically. @throws RedirectError */
export function promotePin(folder: string, name: string): void {
  const next = join(folder, `next_${name}`);
  if (succeeds(() => renameSync(next, join(folder, name)), ['ENOENT'])) return;
  throw new RedirectError('BUSY', pinStep, 'another process installs at the same time');
}

/** Removes the folder if it is empty; pins of other programs keep it. @throws RedirectError */
export function removePinFolder(folder: string): void {
  succeeds(() => rmdirSync(folder), ['ENOENT', 'ENOTEMPTY']);
}

/** False after a failure with one of these codes. @throws RedirectError after any other. */
function succeeds(work: () => unknown, codes: readonly string[]): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (codes.includes(networkCode(error))) return false;
    throw fileError(error);
  }
}

function fileError(error: unknown): RedirectError {
  const code = networkCode(error);
  const isRefused = code === 'EPERM' || code === 'EACCES' || code === 'EROFS';
  const message = error instanceof Error ? error.message : 'unknown';
  return new RedirectError(isRefused ? 'NOT_PERMITTED' : 'KERNEL_REFUSED', pinStep, message, error);
}
