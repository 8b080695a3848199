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
import { textOf, type JsonRecord } from '../../base/json-value.ts';
import { readIp } from './ip-json.ts';
import { RedirectError } from '../redirect.ts';

/**
 * As words of `ip rule`, in the order of addition: rule 79 exists before rule 80, so the node's own traffic
 * is never cut. Removal goes backwards.
 */
function rulesFor(metadataIp: string): readonly string[] {
  return [
    `pref 81 to ${metadataIp} nop`,
    `pref 79 iif lo to ${metadataIp} goto 81`,
    `pref 80 to ${metadataIp} prohibit`,
    `pref 82 from ${metadataIp} blackhole`,
  ];
}

/** Problems of the guard, as short sentences. @throws RedirectError */
export async function diffGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return ['guard impossible: the kernel has no policy routing'];
  return rulesFor(metadataIp)
    .filter((rule) => !listed.includes(rule))
    .map((rule) => `guard rule missing: ${rule}`);
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
  for (const rule of rulesFor(metadataIp)) {
    if (listed.includes(rule)) continue;
    const result = await host.run('ip', argumentsOf('add', rule));
    const failure = failureOf('add guard', 'ip', result);
    // Without rule 79, rule 80 would cut the node itself: stop at the first refusal.
    if (failure?.code === 'UNSUPPORTED') return changes;
    // BUSY is "File exists": another process of the agent added the rule at the same time.
    if (failure !== undefined && failure.code !== 'BUSY') throw failure;
    if (failure === undefined) changes.push(`guard rule ${prefOf(rule)} added`);
  }
  return changes;
}

/** Arguments of `ip` that block the metadata address, in an order that never cuts the node's own traffic. */
export function guardArguments(metadataIp: string): readonly (readonly string[])[] {
  return rulesFor(metadataIp)
    .slice(0, 3)
    .map((rule) => argumentsOf('add', rule));
}

/** Removes the guard, rule 80 first; returns the changes. @throws RedirectError */
export async function removeGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return [];
  const changes: string[] = [];
  for (const rule of rulesFor(metadataIp).toReversed()) {
    if (!listed.includes(rule)) continue;
    outputOf('remove guard', 'ip', await host.run('ip', argumentsOf('del', rule)));
    changes.push(`guard rule ${prefOf(rule)} removed`);
  }
  return changes;
}

/** The node's rules that may belong to the guard; `undefined` without policy routing. */
async function listRules(host: Host): Promise<readonly string[] | undefined> {
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

/**
 * The words of a rule for a single address; `undefined` for a rule with selectors that the guard's rules
 * lack.
 */
export function readRule(entry: JsonRecord): string | undefined {
  const dst = textOf(entry['dst']);
  const src = textOf(entry['src']);
  const pref = entry['priority'];
  const iif = textOf(entry['iif']);
  if (src === undefined || (dst === undefined) === (src === 'all')) return undefined;
  if (typeof pref !== 'number' || (iif !== undefined && iif !== 'lo')) return undefined;
  if (otherSelectors.some((name) => name in entry)) return undefined;
  const address = dst === undefined ? `from ${src}` : `to ${dst}`;
  return `pref ${pref} ${iif === undefined ? '' : `iif ${iif} `}${address} ${actionOf(entry)}`;
}

function actionOf(entry: JsonRecord): string {
  if (typeof entry['goto'] === 'number') return `goto ${entry['goto']}`;
  if ('nop' in entry) return 'nop';
  return textOf(entry['action']) ?? 'lookup';
}

function prefOf(rule: string): string {
  return rule.split(' ')[1] ?? '';
}

function argumentsOf(verb: 'add' | 'del', rule: string): readonly string[] {
  return ['rule', verb, ...rule.split(' ')];
}
