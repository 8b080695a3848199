/**
 * Chooses between the two iptables backends of a node, and reads and changes table `nat` through it.
 * Rules in another backend than the kubelet's work only until an administrator flushes it, so the agent
 * uses the kubelet's.
 */
import { failureOf, outputOf, type Host, type ToolResult } from '../host/command.ts';
import { isUnavailable, RedirectError } from '../redirect.ts';

export type Backend = 'nft' | 'legacy';

type Table = 'nat' | 'mangle';

const [nftSave, legacySave] = [saveOf('nft'), saveOf('legacy')];
const writeStep = 'write rules';
const kubeletChain = /^:KUBE-(?:IPTABLES-HINT|KUBELET-CANARY) /m;

/**
 * Chooses the backend.
 *
 * 1. An explicit choice.
 * 2. The backend with the kubelet's chains: nft, then legacy.
 * 3. nft if its tool works, else legacy.
 * @throws RedirectError if there is no tool or the kernel refuses to list rules.
 */
export async function detectBackend(host: Host, choice: Backend | 'auto'): Promise<Backend> {
  if (choice !== 'auto') return choice;
  const saves: (string | undefined)[] = [];
  for (const backend of ['nft', 'legacy'] as const) {
    for (const table of ['mangle', 'nat'] as const) {
      const save = await probeTable(host, backend, table);
      if (kubeletChain.test(save ?? '')) return backend;
      saves.push(save);
    }
  }
  // No mutation: a kernel has both tables of nft, or none.
  if (saves[0] !== undefined) return 'nft';
  if (await hasTool(host, legacySave)) return 'legacy';
  const why = `${nftSave} is missing or refused by the kernel, and ${legacySave} is missing`;
  throw new RedirectError(
    'TOOL_MISSING',
    'choose backend',
    `${why}: install iptables 1.8 or later`,
  );
}

/** The backend that is not chosen, which may contain a chain of the agent. */
export function otherBackend(chosen: Backend): Backend {
  return chosen === 'nft' ? 'legacy' : 'nft';
}

/**
 * The text of table `nat` in this backend.
 * @throws RedirectError
 */
export async function saveNat(host: Host, backend: Backend): Promise<string> {
  if (await isUnusedLegacy(host, backend, 'nat')) return '';
  return outputOf('read rules', saveOf(backend), await runSave(host, backend, 'nat'));
}

/**
 * The text of a table of a backend that may be absent: `undefined` if its tool is missing or the kernel
 * lacks the backend.
 * @throws RedirectError for a transient failure, and for a missing capability.
 */
export async function probeTable(
  host: Host,
  backend: Backend,
  table: Table,
): Promise<string | undefined> {
  if (await isUnusedLegacy(host, backend, table)) return '';
  const result = await runSave(host, backend, table);
  const failure = failureOf('find backend', saveOf(backend), result);
  if (failure === undefined) return outputOf('find backend', saveOf(backend), result);
  if (isUnavailable(failure)) return undefined;
  throw failure;
}

/** Longest wait for the xtables lock that all legacy tools share. */
const lockWaitSec = 5;

/** Commits one transaction. @throws RedirectError */
export async function restoreRules(host: Host, backend: Backend, script: string): Promise<void> {
  const args = ['--noflush', '-w', String(lockWaitSec)];
  const tool = `iptables-${backend}-restore`;
  const failure = failureOf(writeStep, tool, await host.run(tool, args, script));
  if (failure === undefined) return;
  if (backend !== 'legacy' || failure.code !== 'TOOL_FAILED') throw failure;
  // The tool prints no reason if it cannot get a table. Reading a table needs the same module and
  // permission, and prints the reason.
  throw failureOf(writeStep, saveOf(backend), await runSave(host, backend, 'nat')) ?? failure;
}

function runSave(host: Host, backend: Backend, table: Table): Promise<ToolResult> {
  return host.run(saveOf(backend), ['-t', table]);
}

function saveOf(backend: Backend): string {
  return `iptables-${backend}-save`;
}

/**
 * Whether the kernel has no such legacy table. Reading a table by the legacy tool makes the kernel load
 * its module and create the table, with hooks for every packet; the kernel's list of tables has no side
 * effect. Without the module, as on a fresh Debian 11 to 13, there is no list and no table.
 */
async function isUnusedLegacy(host: Host, backend: Backend, table: Table): Promise<boolean> {
  if (backend !== 'legacy') return false;
  const names = await host.read('/proc/net/ip_tables_names');
  return names?.split('\n').includes(table) !== true;
}

async function hasTool(host: Host, tool: string): Promise<boolean> {
  return failureOf('find backend', tool, await host.run(tool, ['--version'])) === undefined;
}
