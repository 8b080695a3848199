/**
 * The wanted rules of table `nat` as data: parses the output of `iptables-save`, reports differences, and
 * renders one transaction for `iptables-restore --noflush` that removes them.
 *
 * Pure. A transaction contains only the agent's chain and the unconditional jumps to it, so rules of
 * others stay unchanged.
 */
import { connectRate, type RedirectTarget } from '../redirect.ts';
import { portsOf } from '../target.ts';

/** Not that of aad-pod-identity: its agent deletes its chain when it ends, and may run beside this one. */
export const chainName = 'nmi-metadata';

/** The agent's rules in table `nat`. */
export interface NatState {
  readonly hasChain: boolean;
  /** The text of each rule of the agent's chain, after `-A nmi-metadata `. */
  readonly chain: readonly string[];
  /** Positions in PREROUTING, from 1, of the unconditional jumps to the chain. */
  readonly jumps: readonly number[];
  /** Rules of others that jump to the chain, which therefore cannot be deleted. */
  readonly otherReferences: readonly string[];
}

const jumpRule = `-j ${chainName}`;

/**
 * The rules of the chain for a target, in order, exactly as printed by `iptables-save`. The first ones drop
 * a source's connects beyond the rate; the client sends its SYN again after a second. They have one name,
 * so both destinations share the rate. Table `nat` has no DROP, but the kernel routes no packet to 0.0.0.0.
 * @param isBehind programs limit each pod. Connects to the agent's own address are then not counted: who forges
 * the address of a pod would use up its rate.
 */
export function wantedChain(
  target: RedirectTarget,
  isBehind = false,
  port = target.listenPort,
): readonly string[] {
  const { perSec, burst } = connectRate;
  const isTooFast =
    `-m hashlimit --hashlimit-above ${perSec}/sec --hashlimit-burst ${burst} ` +
    `--hashlimit-mode srcip --hashlimit-name ${chainName}`;
  const matches = [matchConnect(target), ...(isBehind ? [] : [matchDirect(target)])];
  return [
    ...matches.map((match) => `${match} ${isTooFast} -j DNAT --to-destination 0.0.0.0`),
    ...redirectRules(target, port),
  ];
}

/**
 * The rules where the kernel or the tool has refused the limit. The repeated end distinguishes them from
 * rules that have lost it, which are repaired.
 */
export function unlimitedChain(
  target: RedirectTarget,
  port = target.listenPort,
): readonly string[] {
  return [...redirectRules(target, port), '-j RETURN'];
}

function redirectRules(target: RedirectTarget, port: number): readonly string[] {
  return [redirectRule(target, port), '-j RETURN'];
}

function redirectRule(target: RedirectTarget, port: number): string {
  return `${matchConnect(target)} -j DNAT --to-destination ${target.listenIp}:${port}`;
}

/** The port of the agent that gets redirected connections. */
export function redirectedPort({ chain }: NatState, target: RedirectTarget): number | undefined {
  return portsOf(target).find((port) => chain.includes(redirectRule(target, port)));
}

function matchConnect({ metadataIp, metadataPort }: RedirectTarget): string {
  return `! -s 127.0.0.1/32 -d ${metadataIp}/32 -p tcp -m tcp --dport ${metadataPort}`;
}

/** A pod that connects to an agent's own address. The node's own connects pass no PREROUTING. */
function matchDirect(target: RedirectTarget): string {
  return `-d ${target.listenIp}/32 -p tcp -m tcp --dport ${portsOf(target).join(':')}`;
}

/** Defaults of the table behind a limit, which some versions of the tool print. */
const tableOptions = / --hashlimit-htable-\S+ \d+/g;

/** Reads the output of `iptables-save -t nat`. Never throws; linear in the text. */
export function parseNat(save: string): NatState {
  let inNat = false;
  let hasChain = false;
  let position = 0;
  const chain: string[] = [];
  const jumps: number[] = [];
  const otherReferences: string[] = [];
  for (const line of save.split('\n')) {
    if (line.startsWith('*')) inNat = line === '*nat';
    if (!inNat) continue;
    if (line.startsWith(`:${chainName} `)) hasChain = true;
    if (!line.startsWith('-A ')) continue;
    if (line.startsWith('-A PREROUTING ')) position += 1;
    if (line === `-A PREROUTING ${jumpRule}`) jumps.push(position);
    else if (line.startsWith(`-A ${chainName} `))
      chain.push(line.slice(chainName.length + 4).replace(tableOptions, ''));
    else if (line.endsWith(` ${jumpRule}`) || line.endsWith(` -g ${chainName}`))
      otherReferences.push(line);
  }
  return { hasChain, chain, jumps, otherReferences };
}

export function isAbsent(state: NatState): boolean {
  return !state.hasChain && state.jumps.length === 0;
}

const maxSentences = 5;

/** Differences from the wanted state, as short sentences; empty if there are none. */
export function diffNat(state: NatState, wanted: readonly string[]): readonly string[] {
  return [...diffChain(state, wanted), ...diffJumps(state)];
}

function diffChain({ hasChain, chain }: NatState, wanted: readonly string[]): readonly string[] {
  if (!hasChain) return [`chain ${chainName} missing`];
  if (chain.join('\n') === wanted.join('\n')) return [];
  const problems = [
    ...wanted.filter((text) => !chain.includes(text)).map((text) => `rule missing: ${text}`),
    ...chain.filter((text) => !wanted.includes(text)).map((text) => `unexpected rule: ${text}`),
  ];
  if (problems.length === 0) return [`rules of ${chainName} are repeated or out of order`];
  return problems.slice(0, maxSentences);
}

function diffJumps(state: NatState): readonly string[] {
  const [first] = state.jumps;
  if (first === undefined) return [`jump to ${chainName} missing from PREROUTING`];
  const problems: string[] = [];
  if (first !== 1) problems.push(`jump is at position ${first}, not first`);
  if (state.jumps.length > 1) problems.push(`jump stands ${state.jumps.length} times, not once`);
  return problems;
}

/** One transaction, and a description of its changes for people. */
export interface Transaction {
  readonly script: string;
  readonly changes: readonly string[];
}

/**
 * The transaction that leads from `state` to the wanted state, or `undefined` if they are equal.
 *
 * Declaring the chain empties it, and the new rules take effect in the same commit: an existing chain is
 * replaced without a gap.
 */
export function renderInstall(state: NatState, wanted: readonly string[]): Transaction | undefined {
  const lines: string[] = [];
  const changes: string[] = [];
  if (diffChain(state, wanted).length > 0) {
    lines.push(`:${chainName} - [0:0]`);
    for (const rule of wanted) lines.push(`-A ${chainName} ${rule}`);
    changes.push(state.hasChain ? `chain ${chainName} rewritten` : `chain ${chainName} made`);
  }
  if (diffJumps(state).length > 0) {
    for (const _ of state.jumps) lines.push(`-D PREROUTING ${jumpRule}`);
    lines.push(`-I PREROUTING 1 ${jumpRule}`);
    changes.push(state.jumps.length === 0 ? 'jump added' : 'jump moved to the first place, once');
  }
  return lines.length === 0 ? undefined : { script: renderTransaction(lines), changes };
}

/**
 * The transaction that removes chain and jumps, or `undefined` if there are none. If a rule of others
 * jumps to the chain, the chain is only emptied.
 */
export function renderRemove(state: NatState): Transaction | undefined {
  if (isAbsent(state)) return undefined;
  const pinned = state.otherReferences.length > 0;
  if (pinned && state.chain.length === 0 && state.jumps.length === 0) return undefined;
  const lines = state.jumps.map(() => `-D PREROUTING ${jumpRule}`);
  lines.push(`-F ${chainName}`);
  if (!pinned) lines.push(`-X ${chainName}`);
  const change = pinned ? `chain ${chainName} emptied` : `chain ${chainName} removed`;
  return { script: renderTransaction(lines), changes: [change] };
}

function renderTransaction(lines: readonly string[]): string {
  return ['*nat', ...lines, 'COMMIT', ''].join('\n');
}
