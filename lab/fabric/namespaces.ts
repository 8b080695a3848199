/**
 * Named network namespaces (files in /run/netns) and the processes inside them. Removal is
 * synchronous on purpose: it must also work from a process's `exit` event, and it takes
 * milliseconds.
 *
 * Signals are sent only to processes in the named namespaces.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';

import { parseNamespaceName } from './names.ts';
import { LabError } from './lab-error.ts';
import { isAlive } from './process-alive.ts';

const directory = '/run/netns';
const killDeadlineMs = 5_000;
const killPollMs = 4;

export function namespacePath(name: string): string {
  return `${directory}/${name}`;
}

export function hasNamespace(name: string): boolean {
  return existsSync(namespacePath(name));
}

/** Every namespace that any lab created. */
export function listLabNamespaces(): readonly string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).filter((name) => parseNamespaceName(name) !== undefined);
}

export function listFabricNamespaces(prefix: string): readonly string[] {
  return listLabNamespaces().filter((name) => parseNamespaceName(name)?.prefix === prefix);
}

/** Like `ip netns pids`, for several namespaces in one walk over /proc, without a process. */
export function findProcesses(names: readonly string[]): readonly number[] {
  const wanted = new Set<string>();
  for (const name of names) {
    const key = namespaceKey(namespacePath(name));
    if (key !== undefined) wanted.add(key);
  }
  if (wanted.size === 0) return [];
  const pids: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const key = namespaceKey(`/proc/${entry}/ns/net`);
    if (key !== undefined && wanted.has(key)) pids.push(pid);
  }
  return pids;
}

function namespaceKey(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${String(dev)}:${String(ino)}`;
  } catch {
    // The process has ended, is a zombie (zombies have no namespaces), or is not readable for us.
    return undefined;
  }
}

/**
 * Kills the processes in the namespaces, waits for their end, and deletes the namespaces with their
 * links. Names that do not exist are skipped.
 * @throws LabError `PROCESS_STUCK` or `NAMESPACE_WRONG` when a process or namespace remains.
 */
export function removeNamespaces(names: readonly string[]): void {
  const present = names.filter(hasNamespace);
  if (present.length === 0) return;
  killProcesses(present);
  const lines = present.map((name) => `netns delete ${name}\n`).join('');
  // -force continues after a failed line: another lab's sweep may have been faster.
  spawnSync('ip', ['-force', '-batch', '-'], {
    input: lines,
    stdio: ['pipe', 'ignore', 'ignore'],
    timeout: killDeadlineMs,
  });
  const left = present.filter(hasNamespace);
  if (left.length > 0)
    throw new LabError('NAMESPACE_WRONG', `namespaces not deleted: ${left.join(', ')}`);
}

/** @throws LabError `PROCESS_STUCK` after 5 s. */
export function killProcesses(names: readonly string[]): void {
  const idle = new Int32Array(new SharedArrayBuffer(4));
  const endMs = performance.now() + killDeadlineMs;
  for (;;) {
    const pids = findProcesses(names);
    if (pids.length === 0) return;
    if (performance.now() > endMs) {
      throw new LabError('PROCESS_STUCK', `still running: ${pids.join(', ')}`);
    }
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Ended between the scan and the signal.
      }
    }
    Atomics.wait(idle, 0, 0, killPollMs);
  }
}

/** Removes the namespaces of labs whose owner is dead. Returns the removed names. */
export function sweepDeadFabrics(): readonly string[] {
  const dead = listLabNamespaces().filter((name) => {
    const owner = parseNamespaceName(name)?.ownerPid;
    return owner !== undefined && !isAlive(owner);
  });
  removeNamespaces(dead);
  return dead;
}
