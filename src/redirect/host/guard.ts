/**
 * The guard: policy routing rules that let only the node itself send to the metadata address. A
 * redirected connection has another destination when it is routed, so the guard sees only packets that
 * bypassed iptables, because the tables were flushed or the connection is older than the redirect. Such a
 * packet gets an ICMP error, and the caller's connect fails at once. (The kernel limits these errors to a
 * few at once and then about one in two seconds per source; beyond that a connect fails at a later SYN or
 * by its timeout.)
 *
 *     79: to METADATA iif lo   goto 81      skips rule 80 for packets of the node itself
 *     80: to METADATA          prohibit     rejects forwarded packets
 *     81: to METADATA          nop          target of rule 79
 *     82: from METADATA        blackhole    drops forwarded packets that claim to come from the service
 *
 * The real service's answers are never forwarded: they all go to the node itself, and the kernel's
 * local table routes them before these rules apply. Rule 82 keeps a pod from forging an answer into
 * a connection of another pod to which it has a route.
 *
 * The guard applies to routed packets. If the node's uplink is a port of the pods' bridge, their packets
 * are switched and not routed; for these pods only the redirect counts.
 */
import { failureOf, outputOf, type Host } from './command.ts';
import type { JsonRecord } from '../../base/json-value.ts';
import { readIp, textOf } from './ip-json.ts';
import { RedirectError } from '../redirect.ts';

interface GuardRule {
  readonly pref: number;
  /** The selector that contains the address. */
  readonly by: 'to' | 'from';
  readonly iif: 'lo' | undefined;
  readonly action: string;
}

// In the order of addition: rule 79 exists before rule 80, so the node's own traffic is never cut.
// Removal goes backwards.
const landing: GuardRule = { pref: 81, by: 'to', iif: undefined, action: 'nop' };
const bypass: GuardRule = { pref: 79, by: 'to', iif: 'lo', action: 'goto 81' };
const barrier: GuardRule = { pref: 80, by: 'to', iif: undefined, action: 'prohibit' };
const forgery: GuardRule = { pref: 82, by: 'from', iif: undefined, action: 'blackhole' };
const closingRules: readonly GuardRule[] = [landing, bypass, barrier];
const guardRules: readonly GuardRule[] = [...closingRules, forgery];

/** A rule of the node for a single address, without selectors that the guard's rules lack. */
export interface ListedRule extends GuardRule {
  readonly address: string;
}

/** Problems of the guard, as short sentences. @throws RedirectError */
export async function diffGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return ['guard impossible: the kernel has no policy routing'];
  return guardRules
    .filter((rule) => !isListed(listed, rule, metadataIp))
    .map(
      (rule) => `guard rule missing: pref ${rule.pref} ${selectorOf(rule, metadataIp).join(' ')}`,
    );
}

/**
 * Adds the missing rules; returns the changes. A kernel without policy routing is no failure here:
 * `diffGuard` reports it.
 * @throws RedirectError
 */
export async function ensureGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return [];
  const changes: string[] = [];
  for (const rule of guardRules) {
    if (isListed(listed, rule, metadataIp)) continue;
    const result = await host.run('ip', argumentsOf('add', rule, metadataIp));
    const failure = failureOf('add guard', 'ip', result);
    // Without rule 79, rule 80 would cut the node itself: stop at the first refusal.
    if (failure?.code === 'UNSUPPORTED') return changes;
    // BUSY is "File exists": another process of the agent added the rule at the same time.
    if (failure !== undefined && failure.code !== 'BUSY') throw failure;
    if (failure === undefined) changes.push(`guard rule ${rule.pref} added`);
  }
  return changes;
}

/**
 * Arguments of `ip` that block the metadata address, in an order that never cuts the node's own
 * traffic.
 */
export function guardArguments(metadataIp: string): readonly (readonly string[])[] {
  return closingRules.map((rule) => argumentsOf('add', rule, metadataIp));
}

/** Removes the guard, rule 80 first; returns the changes. @throws RedirectError */
export async function removeGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return [];
  const changes: string[] = [];
  for (const rule of guardRules.toReversed()) {
    if (!isListed(listed, rule, metadataIp)) continue;
    outputOf('remove guard', 'ip', await host.run('ip', argumentsOf('del', rule, metadataIp)));
    changes.push(`guard rule ${rule.pref} removed`);
  }
  return changes;
}

/** The node's rules that may belong to the guard; `undefined` without policy routing. */
async function listRules(host: Host): Promise<readonly ListedRule[] | undefined> {
  try {
    const entries = await readIp(host, 'read guard', ['-4', 'rule', 'show']);
    return entries.map(readRule).filter((rule) => rule !== undefined);
  } catch (error) {
    if (error instanceof RedirectError && error.code === 'UNSUPPORTED') return undefined;
    throw error;
  }
}

const otherSelectors = [
  'not',
  'srclen',
  'dstlen',
  'oif',
  'fwmark',
  'tos',
  'dscp',
  'ipproto',
  'sport',
  'sport_start',
  'dport',
  'dport_start',
  'uid_start',
  'tun_id',
  'l3mdev',
  'suppress_prefixlen',
  'suppress_ifgroup',
  'flow',
];

/** A rule for a single address, without selectors that the guard's rules lack; `undefined` for others. */
export function readRule(entry: JsonRecord): ListedRule | undefined {
  const dst = textOf(entry['dst']);
  const src = textOf(entry['src']);
  const pref = entry['priority'];
  const iif = textOf(entry['iif']);
  if (src === undefined || (dst === undefined) === (src === 'all')) return undefined;
  if (typeof pref !== 'number' || (iif !== undefined && iif !== 'lo')) return undefined;
  if (otherSelectors.some((name) => name in entry)) return undefined;
  const action = actionOf(entry);
  if (dst === undefined) return { pref, by: 'from', address: src, iif, action };
  return { pref, by: 'to', address: dst, iif, action };
}

function actionOf(entry: JsonRecord): string {
  if (typeof entry['goto'] === 'number') return `goto ${entry['goto']}`;
  if ('nop' in entry) return 'nop';
  return textOf(entry['action']) ?? 'lookup';
}

function isListed(listed: readonly ListedRule[], rule: GuardRule, metadataIp: string): boolean {
  return listed.some(
    (other) =>
      other.pref === rule.pref &&
      other.by === rule.by &&
      other.address === metadataIp &&
      other.iif === rule.iif &&
      other.action === rule.action,
  );
}

function selectorOf(rule: GuardRule, metadataIp: string): readonly string[] {
  const iif = rule.iif === undefined ? [] : ['iif', rule.iif];
  return [...iif, rule.by, metadataIp, ...rule.action.split(' ')];
}

function argumentsOf(verb: 'add' | 'del', rule: GuardRule, metadataIp: string): readonly string[] {
  return ['rule', verb, 'pref', String(rule.pref), ...selectorOf(rule, metadataIp)];
}
