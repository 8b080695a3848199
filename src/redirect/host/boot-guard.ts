/**
 * The guard from boot on: a systemd unit adds the guard's rules before the kubelet starts. A reboot
 * removes everything that the agent had in the kernel, and the kubelet starts all pods of a known node at
 * once: without the unit, pods reach the real service until the agent has started.
 *
 * The agent adopts the rules (see `guard.ts`). They do not cover traffic of the node itself; for
 * policy routing, pods on the host network are part of the node.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { guardArguments } from './guard.ts';
import { RedirectError } from '../redirect.ts';

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
 * @param folder mount point of the host's `/etc/systemd/system`.
 * @throws RedirectError if it cannot be written.
 */
export function writeBootGuard(folder: string, metadataIp: string): void {
  if (isWritten(folder, metadataIp)) return;
  attempt('write', folder, () => {
    const path = join(folder, unit);
    // Atomically: systemd may read it at any time.
    writeFileSync(`${path}.new`, renderBootGuard(metadataIp), { mode: 0o644 });
    renameSync(`${path}.new`, path);
    const link = join(folder, wantsFolder, unit);
    mkdirSync(join(folder, wantsFolder), { recursive: true });
    rmSync(link, { force: true });
    symlinkSync(join('..', unit), link);
  });
}

/** @throws RedirectError if it cannot be removed. */
export function removeBootGuard(folder: string): void {
  attempt('remove', folder, () => {
    rmSync(join(folder, wantsFolder, unit), { force: true });
    rmSync(join(folder, unit), { force: true });
    const wants = join(folder, wantsFolder);
    if (existsSync(wants) && readdirSync(wants).length === 0) rmdirSync(wants);
  });
}

function attempt(verb: string, folder: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new RedirectError('KERNEL_REFUSED', `${verb} ${unit} in ${folder}`, reason, error);
  }
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
