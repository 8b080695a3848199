/**
 * The guard from boot on: a unit of systemd that adds the guard's rules before the kubelet starts.
 * The kubelet starts all pods of a known node at once, and what the agent had in the kernel is gone
 * with the kernel: without it pods reach the real service until the agent has started.
 *
 * The agent takes the rules over as its own (see `guard.ts`). What the node itself sends is not
 * covered, and pods on the host network are that to policy routing.
 */
import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { guardArguments } from './guard.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../redirect.ts';

const unit = 'nmi-guard.service';
/** By being wanted by the kubelet's unit it needs no `systemctl enable`. */
const wantsFolder = 'kubelet.service.wants';

/** The unit's text; also shipped for images and cloud-init. */
export function renderBootGuard(metadataIp: string): string {
  // A rule that is there already is no failure: the unit may be started again by hand.
  const rules = guardArguments(metadataIp).map(
    (words) => `ExecStart=-/usr/bin/env ip ${words.join(' ')}`,
  );
  return `[Unit]
Description=Close the metadata service to pods until the agent of this node has started
DefaultDependencies=no
Before=kubelet.service
After=systemd-networkd.service NetworkManager.service

[Service]
Type=oneshot
RemainAfterExit=yes
${rules.join('\n')}

[Install]
WantedBy=kubelet.service
`;
}

/**
 * The mode, which keeps the unit in a folder of the host's systemd.
 * @param folder where the host's `/etc/systemd/system` is mounted.
 */
export function withBootGuard(redirect: Redirect, folder: string, metadataIp: string): Redirect {
  return {
    ...redirect,
    install: async () => {
      const status = await redirect.install();
      const problem = tryOn(() => writeBootGuard(folder, metadataIp));
      if (typeof problem === 'string') return withProblem(status, problem);
      return problem
        ? { ...status, changed: [...(status.changed ?? []), `${unit} written`] }
        : status;
    },
    verify: async () => {
      const status = await redirect.verify();
      return isWritten(folder, metadataIp)
        ? status
        : withProblem(status, `${unit} is not in ${folder}`);
    },
    remove: async () => {
      await redirect.remove();
      try {
        rmSync(join(folder, wantsFolder, unit), { force: true });
        rmSync(join(folder, unit), { force: true });
      } catch (error) {
        throw new RedirectError('KERNEL_REFUSED', `remove ${unit}`, messageOf(error), error);
      }
    },
  };
}

/** Whether it had to be written. */
function writeBootGuard(folder: string, metadataIp: string): boolean {
  if (isWritten(folder, metadataIp)) return false;
  const path = join(folder, unit);
  // In one step: systemd may read it at any time.
  writeFileSync(`${path}.new`, renderBootGuard(metadataIp), { mode: 0o644 });
  renameSync(`${path}.new`, path);
  const link = join(folder, wantsFolder, unit);
  mkdirSync(join(folder, wantsFolder), { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(join('..', unit), link);
  return true;
}

function isWritten(folder: string, metadataIp: string): boolean {
  try {
    return (
      readFileSync(join(folder, unit), 'utf8') === renderBootGuard(metadataIp) &&
      readlinkSync(join(folder, wantsFolder, unit)) === join('..', unit)
    );
  } catch {
    return false;
  }
}

function tryOn(deed: () => boolean): boolean | string {
  try {
    return deed();
  } catch (error) {
    return `${unit} could not be written: ${messageOf(error)}`;
  }
}

function withProblem(status: RedirectStatus, problem: string): RedirectStatus {
  const state = status.state === 'active' ? 'broken' : status.state;
  return { ...status, state, problems: [...status.problems, problem] };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
