/**
 * The guard from boot on: a systemd unit adds the guard's rules before the kubelet starts. A reboot
 * removes everything that the agent had in the kernel, and the kubelet starts all pods of a known node at
 * once: without the unit, pods reach the real service until the agent has started.
 *
 * The agent adopts the rules (see `guard.ts`). They do not cover traffic of the node itself; for
 * policy routing, pods on the host network are part of the node.
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
/** A link in this folder replaces `systemctl enable`. */
const wantsFolder = 'kubelet.service.wants';

/** Text of the unit; also published for images and cloud-init. */
export function renderBootGuard(metadataIp: string): string {
  // An existing rule is no failure: an administrator may start the unit again.
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
 * A mode that also installs and removes the unit.
 * @param folder mount point of the host's `/etc/systemd/system`.
 */
export function withBootGuard(redirect: Redirect, folder: string, metadataIp: string): Redirect {
  return {
    ...redirect,
    install: async () => {
      const status = await redirect.install();
      try {
        if (!writeBootGuard(folder, metadataIp)) return status;
      } catch (error) {
        return withProblem(status, `${unit} could not be written: ${messageOf(error)}`);
      }
      return { ...status, changed: [...(status.changed ?? []), `${unit} written`] };
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

/** Returns whether the unit was written. */
function writeBootGuard(folder: string, metadataIp: string): boolean {
  if (isWritten(folder, metadataIp)) return false;
  const path = join(folder, unit);
  // Atomically: systemd may read it at any time.
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

function withProblem(status: RedirectStatus, problem: string): RedirectStatus {
  const state = status.state === 'active' ? 'broken' : status.state;
  return { ...status, state, problems: [...status.problems, problem] };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
