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

/**
 * As words of `ip rule`, in the order of addition: rule 79 exists before rule 80, so the node's own traffic
 * is never cut. Removal goes backwards.
 */
function rulesFor(metadataIp: string): readonly string[] {
  return [
    `pref 81 to ${metadataIp} nop`,
    `pref 79 to ${metadataIp} iif lo goto 81`,
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

/** The node's rules in the words of `rulesFor`; `undefined` without policy routing. */
async function listRules(host: Host): Promise<readonly string[] | undefined> {
  const result = await host.run('ip', ['-4', 'rule', 'show']);
  if (failureOf('read guard', 'ip', result)?.code === 'UNSUPPORTED') return undefined;
  const lines = outputOf('read guard', 'ip', result).split('\n');
  return lines.map((line) => line.trimEnd().replace(/^(\d+):\t(?:from all )?/, 'pref $1 '));
}

function prefOf(rule: string): string {
  return rule.split(' ')[1] ?? '';
}

function argumentsOf(verb: 'add' | 'del', rule: string): readonly string[] {
  return ['rule', verb, ...rule.split(' ')];
}
