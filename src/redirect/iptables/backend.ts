/**
 * Which of the two iptables of a node is the one in use, and reading and changing table `nat`
 * through it. Rules in the wrong one work until somebody flushes the other, so we go where the
 * kubelet is.
 */
import { failureOf, outputOf, type Host, type ToolResult } from '../host/command.ts';
import { CHAIN } from './rules.ts';
import { isUnavailable, RedirectError } from '../redirect.ts';

export type BackendChoice = 'auto' | 'nft' | 'legacy';

export interface Backend {
  readonly name: 'nft' | 'legacy';
  readonly save: string;
  readonly restore: string;
}

type Table = 'nat' | 'mangle';

export const NFT: Backend = {
  name: 'nft',
  save: 'iptables-nft-save',
  restore: 'iptables-nft-restore',
};
export const LEGACY: Backend = {
  name: 'legacy',
  save: 'iptables-legacy-save',
  restore: 'iptables-legacy-restore',
};

const WRITE = 'write rules';
// kube-proxy writes tens of thousands of rules on a large cluster, about 150 bytes each.
const MAX_SAVE_BYTES = 64 << 20;
const KUBELET_CHAIN = /^:KUBE-(?:IPTABLES-HINT|KUBELET-CANARY) /m;
const OWN_CHAIN = new RegExp(`^:${CHAIN} `, 'm');

/**
 * Chooses the backend.
 *
 * 1. An explicit choice is kept.
 * 2. Where the kubelet's own chains are: nft, then legacy.
 * 3. Where an `aad-metadata` chain is already: nft, then legacy.
 * 4. nft if its tool works, else legacy.
 * @throws RedirectError when no tool is there or the kernel refuses to be read.
 */
export async function detectBackend(host: Host, choice: BackendChoice): Promise<Backend> {
  if (choice === 'nft') return NFT;
  if (choice === 'legacy') return LEGACY;

  const nftMangle = await probeTable(host, NFT, 'mangle');
  if (KUBELET_CHAIN.test(nftMangle ?? '')) return NFT;
  const nftNat = nftMangle === undefined ? undefined : await probeTable(host, NFT, 'nat');
  if (KUBELET_CHAIN.test(nftNat ?? '')) return NFT;
  const legacyMangle = await probeTable(host, LEGACY, 'mangle');
  if (KUBELET_CHAIN.test(legacyMangle ?? '')) return LEGACY;
  const legacyNat = await probeTable(host, LEGACY, 'nat');
  if (KUBELET_CHAIN.test(legacyNat ?? '')) return LEGACY;

  if (OWN_CHAIN.test(nftNat ?? '')) return NFT;
  if (OWN_CHAIN.test(legacyNat ?? '')) return LEGACY;

  if (nftMangle !== undefined) return NFT;
  if ((await versionOf(host, LEGACY.save)) !== undefined) return LEGACY;
  throw await noBackend(host);
}

/**
 * The backend to take where the kernel refuses rules through the one that {@link detectBackend} chose: it
 * can be read without nft_compat or a nat chain for IPv4, and not written. Undefined where the choice was
 * somebody's, or the kubelet's.
 * @throws RedirectError
 */
export async function findFallback(
  host: Host,
  choice: BackendChoice,
  refused: Backend,
): Promise<Backend | undefined> {
  if (choice !== 'auto' || refused !== NFT) return undefined;
  for (const table of ['mangle', 'nat'] as const) {
    if (KUBELET_CHAIN.test((await probeTable(host, NFT, table)) ?? '')) return undefined;
  }
  return LEGACY;
}

/** Before 1.8 iptables had no tools that name their backend. */
async function noBackend(host: Host): Promise<RedirectError> {
  if ((await versionOf(host, NFT.save)) !== undefined) {
    const why = `the kernel refuses ${NFT.save}, and ${LEGACY.save} is not on the PATH`;
    return new RedirectError('UNSUPPORTED', 'backend', `${why}; install it`);
  }
  const version = await versionOf(host, 'iptables');
  const found = version ?? 'no iptables';
  const why = `found ${found}, without ${NFT.save} and ${LEGACY.save}`;
  return new RedirectError('TOOL_MISSING', 'backend', `${why}; install iptables 1.8 or later`);
}

/** The backends besides `chosen` in which a chain of ours could stand. */
export function otherBackends(chosen: Backend): readonly Backend[] {
  return [NFT, LEGACY].filter((backend) => backend.name !== chosen.name);
}

/**
 * The text of table `nat`, for reading back what was asked of this backend.
 * @throws RedirectError
 */
export async function saveNat(host: Host, backend: Backend): Promise<string> {
  if (await isUnusedLegacy(host, backend, 'nat')) return '';
  return outputOf('read rules', backend.save, await runSave(host, backend, 'nat'));
}

/**
 * The text of a table of a backend that need not be there: `undefined` when its tool is missing or
 * the kernel has no such backend.
 * @throws RedirectError for what could be otherwise in a moment, and for a missing capability.
 */
export async function probeTable(
  host: Host,
  backend: Backend,
  table: Table,
): Promise<string | undefined> {
  if (await isUnusedLegacy(host, backend, table)) return '';
  const result = await runSave(host, backend, table);
  const failure = failureOf('find backend', backend.save, result);
  if (failure === undefined) return outputOf('find backend', backend.save, result);
  if (isUnavailable(failure)) return undefined;
  throw failure;
}

/**
 * How many connections our DNAT has brought since the rule was made: netfilter asks table `nat` for
 * the first packet of each only. Undefined where there is no such rule.
 * @throws RedirectError
 */
export async function countBrought(host: Host, backend: Backend): Promise<number | undefined> {
  if (await isUnusedLegacy(host, backend, 'nat')) return undefined;
  const args = ['-c', '-t', 'nat'];
  const result = await host.run(backend.save, args, { maxBytes: MAX_SAVE_BYTES });
  return parseBrought(outputOf('read counters', backend.save, result));
}

const COUNTED_DNAT = new RegExp(`^\\[(\\d+):\\d+\\] -A ${CHAIN} .* -j DNAT `, 'gm');

/** Reads the output of `iptables-save -c -t nat`. Never throws. */
function parseBrought(save: string): number | undefined {
  const counts = [...save.matchAll(COUNTED_DNAT)].map((match) => Number(match[1]));
  return counts.length === 0 ? undefined : counts.reduce((sum, count) => sum + count, 0);
}

/**
 * Commits one transaction.
 * @param lockWaitSec how long to wait for the lock that all legacy tools share.
 * @throws RedirectError
 */
export async function restoreRules(
  host: Host,
  backend: Backend,
  script: string,
  lockWaitSec: number,
): Promise<void> {
  const args = ['--noflush', '-w', String(lockWaitSec)];
  const result = await host.run(backend.restore, args, { input: script });
  const failure = failureOf(WRITE, backend.restore, result);
  if (failure === undefined) return;
  if (backend.name !== 'legacy' || failure.code !== 'TOOL_FAILED') throw failure;
  // Of a table that it cannot get it says no more; to read one takes the same module and the same right.
  throw failureOf(WRITE, backend.save, await runSave(host, backend, 'nat')) ?? failure;
}

export function runSave(host: Host, backend: Backend, table: Table): Promise<ToolResult> {
  return host.run(backend.save, ['-t', table], { maxBytes: MAX_SAVE_BYTES });
}

/**
 * Asking the legacy tool for a table makes the kernel load the modules for it and create it, with its
 * hooks in the way of every packet; the kernel's own list shows without a trace whether there is anything
 * to ask for. Where the module is not loaded, as on a fresh Debian 11 to 13, there is no list and no table.
 */
async function isUnusedLegacy(host: Host, backend: Backend, table: Table): Promise<boolean> {
  if (backend.name !== 'legacy') return false;
  const tables = (await listLegacyTables(host)) ?? [];
  return !tables.includes(table);
}

/** Undefined where the kernel's module for them is not loaded. */
export async function listLegacyTables(host: Host): Promise<readonly string[] | undefined> {
  const names = await host.read('/proc/net/ip_tables_names');
  return names?.split('\n').filter((name) => name !== '');
}

/** As it prints it; undefined where it does not start. */
async function versionOf(host: Host, tool: string): Promise<string | undefined> {
  const result = await host.run(tool, ['--version']);
  return result.kind === 'exited' && result.exitCode === 0 ? result.stdout.trim() : undefined;
}
