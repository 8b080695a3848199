/**
 * What both containers of the agent's pod tell each other, in files of the folder that they share:
 *
 *     redirect.json    by `nmi redirect run`: the state of the redirect, at each check of it
 *     node-pods.json   by the agent: pods on the host network that reach the metadata address itself
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { asRecord, textOf } from '../../base/json-value.ts';
import type { RedirectMode } from '../../redirect/redirect.ts';
import { cgroupIds, readShared, writeShared } from './shared-file.ts';

export type MaintainedMode = Exclude<RedirectMode, 'none'>;

export interface RedirectState {
  /** When it was written: it differs each time. */
  readonly at: string;
  readonly mode: MaintainedMode;
  /** `169.254.169.254:80 to 169.254.25.79:2579`, with the port of the first slot. */
  readonly target: string;
  /** The port that the agent of this pod has to listen on. */
  readonly port: number;
  /** The port that new connections go to; null: none. */
  readonly redirectedTo: number | null;
  /** Whether the agent of this pod has to listen before it is ready. */
  readonly isAlone: boolean;
  /** The process ends, and has given the redirect away if another agent takes connections. */
  readonly isLeaving: boolean;
  /** Why pods are not redirected; empty if they are. */
  readonly problems: readonly string[];
}

export function statePath(sharedFolder: string): string {
  return join(sharedFolder, 'redirect.json');
}

/** @throws errors of the file system. */
export function writeState(sharedFolder: string, state: RedirectState): void {
  writeShared(statePath(sharedFolder), state);
}

/** The agent has no port then. */
export function removeState(sharedFolder: string): void {
  rmSync(statePath(sharedFolder), { force: true });
}

/** Undefined if there is none. */
export function readState(sharedFolder: string): RedirectState | undefined {
  const file = readShared(statePath(sharedFolder));
  const { mode, port } = file ?? {};
  if (mode !== 'ebpf' && mode !== 'iptables') return undefined;
  if (typeof port !== 'number') return undefined;
  const redirectedTo = file?.['redirectedTo'];
  const problems = file?.['problems'];
  return {
    mode,
    port,
    at: textOf(file?.['at']) ?? '',
    target: textOf(file?.['target']) ?? '',
    redirectedTo: typeof redirectedTo === 'number' ? redirectedTo : null,
    isAlone: file?.['isAlone'] === true,
    isLeaving: file?.['isLeaving'] === true,
    problems: Array.isArray(problems) ? problems.filter((each) => typeof each === 'string') : [],
  };
}

/** As many as the map of the programs has. */
const maxNodePods = 1_024;

export function nodePodsPath(sharedFolder: string): string {
  return join(sharedFolder, 'node-pods.json');
}

/** @param cgroups ids of the pods' cgroups. @throws errors of the file system. */
export function writeNodePods(sharedFolder: string, cgroups: readonly bigint[]): void {
  writeShared(nodePodsPath(sharedFolder), { cgroups: cgroups.map(String) });
}

/** Undefined if the agent has not written them. */
export function readNodePods(sharedFolder: string): readonly bigint[] | undefined {
  const list = asRecord(readShared(nodePodsPath(sharedFolder)))?.['cgroups'];
  return Array.isArray(list) ? cgroupIds(list).slice(0, maxNodePods) : undefined;
}
