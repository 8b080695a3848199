/**
 * The guard behind the redirect: policy routing rules that let nobody but the node itself send to
 * the metadata address. A connection that was redirected has another destination by the time it is
 * routed, so the guard meets only what slipped past iptables: because somebody flushed the tables,
 * or because the connection is older than the redirect. Such a packet is answered with an ICMP
 * error and the caller's connect fails at once (the kernel sends a source a few such errors in a
 * row and then about one in two seconds; beyond that a connect fails at a later SYN or in its time).
 *
 *     79: to METADATA iif lo   goto 81      what the node itself sends goes round
 *     80: to METADATA          prohibit     what it would forward ends here
 *     81: to METADATA          nop          where rule 79 lands
 *
 * The guard meets packets that are routed. Pods on a bridge that has the node's uplink as a port
 * are switched past it; for them only the redirect counts.
 */
import { failureOf, outputOf, type Host } from './command.ts';
import { parseIpJson, textOf, type JsonObject } from './ip-json.ts';
import { RedirectError } from '../redirect.ts';

interface GuardRule {
  readonly pref: number;
  readonly iif: 'lo' | undefined;
  readonly action: string;
}

// In the order of adding: the way round stands before the barrier does, so the node's own traffic
// is never cut. Taking away goes backwards.
const LANDING: GuardRule = { pref: 81, iif: undefined, action: 'nop' };
const BYPASS: GuardRule = { pref: 79, iif: 'lo', action: 'goto 81' };
const BARRIER: GuardRule = { pref: 80, iif: undefined, action: 'prohibit' };
const ALL: readonly GuardRule[] = [LANDING, BYPASS, BARRIER];

/** A rule of the node that leads to one address and selects by nothing else than ours do. */
export interface ListedRule extends GuardRule {
  readonly dst: string;
}

/** What is wrong with the guard, as short sentences. @throws RedirectError */
export async function diffGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return ['guard impossible: the kernel has no policy routing'];
  return ALL.filter((rule) => !isListed(listed, rule, metadataIp)).map(
    (rule) => `guard rule missing: pref ${rule.pref} ${selectorOf(rule, metadataIp).join(' ')}`,
  );
}

/**
 * Adds what is missing of the guard; returns what it changed. A kernel that cannot do it is not a
 * failure here: `diffGuard` reports it.
 * @throws RedirectError
 */
export async function ensureGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return [];
  const changes: string[] = [];
  for (const rule of ALL) {
    if (isListed(listed, rule, metadataIp)) continue;
    const result = await host.run('ip', argumentsOf('add', rule, metadataIp));
    const failure = failureOf('add guard', 'ip', result);
    // Without the way round the barrier would cut the node itself: stop at the first refusal.
    if (failure?.code === 'UNSUPPORTED') return changes;
    // BUSY is "File exists": another process of ours was quicker.
    if (failure !== undefined && failure.code !== 'BUSY') throw failure;
    if (failure === undefined) changes.push(`guard rule ${rule.pref} added`);
  }
  return changes;
}

/** What `ip` is told to add the guard, in the order that cuts nothing of the node's own. */
export function guardArguments(metadataIp: string): readonly (readonly string[])[] {
  return ALL.map((rule) => argumentsOf('add', rule, metadataIp));
}

/** Takes the guard away, the barrier first; returns what it changed. @throws RedirectError */
export async function removeGuard(host: Host, metadataIp: string): Promise<readonly string[]> {
  const listed = await listRules(host);
  if (listed === undefined) return [];
  const changes: string[] = [];
  for (const rule of ALL.toReversed()) {
    if (!isListed(listed, rule, metadataIp)) continue;
    outputOf('remove guard', 'ip', await host.run('ip', argumentsOf('del', rule, metadataIp)));
    changes.push(`guard rule ${rule.pref} removed`);
  }
  return changes;
}

/** The node's rules that could be ours; `undefined` where the kernel has no policy routing. */
async function listRules(host: Host): Promise<readonly ListedRule[] | undefined> {
  const result = await host.run('ip', ['-j', '-4', 'rule', 'show']);
  const failure = failureOf('read guard', 'ip', result);
  if (failure?.code === 'UNSUPPORTED') return undefined;
  const rules = parseRules(outputOf('read guard', 'ip', result));
  if (rules !== undefined) return rules;
  throw new RedirectError('TOOL_FAILED', 'read guard', 'ip printed no JSON (iproute2 needed)');
}

const OTHER_SELECTORS = [
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
 * Reads the JSON of `ip -j rule`: the rules that lead to a single address and have no selector
 * that ours lack. `undefined` when the text is something else. Never throws.
 */
export function parseRules(json: string): readonly ListedRule[] | undefined {
  return parseIpJson(json)
    ?.map(parseListedRule)
    .filter((rule) => rule !== undefined);
}

function parseListedRule(entry: JsonObject): ListedRule | undefined {
  const dst = textOf(entry['dst']);
  const pref = entry['priority'];
  const iif = textOf(entry['iif']);
  if (dst === undefined || typeof pref !== 'number' || entry['src'] !== 'all') return undefined;
  if (iif !== undefined && iif !== 'lo') return undefined;
  if (OTHER_SELECTORS.some((name) => name in entry)) return undefined;
  return { pref, dst, iif, action: actionOf(entry) };
}

function actionOf(entry: JsonObject): string {
  if (typeof entry['goto'] === 'number') return `goto ${entry['goto']}`;
  if ('nop' in entry) return 'nop';
  return textOf(entry['action']) ?? 'lookup';
}

function isListed(listed: readonly ListedRule[], rule: GuardRule, metadataIp: string): boolean {
  return listed.some(
    (other) =>
      other.pref === rule.pref &&
      other.dst === metadataIp &&
      other.iif === rule.iif &&
      other.action === rule.action,
  );
}

function selectorOf(rule: GuardRule, metadataIp: string): readonly string[] {
  const iif = rule.iif === undefined ? [] : ['iif', rule.iif];
  return [...iif, 'to', metadataIp, ...rule.action.split(' ')];
}

function argumentsOf(verb: 'add' | 'del', rule: GuardRule, metadataIp: string): readonly string[] {
  return ['rule', verb, 'pref', String(rule.pref), ...selectorOf(rule, metadataIp)];
}
