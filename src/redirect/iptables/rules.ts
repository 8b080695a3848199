/**
 * The wanted rules of table `nat` as data: parse what `iptables-save` prints, say what differs,
 * render the one transaction for `iptables-restore --noflush` that makes it right.
 *
 * Pure text in, pure text out. A transaction names our chain and the plain jumps to it and nothing
 * else, so whatever others have in the table stays as it is.
 */
import type { RedirectTarget } from '../redirect.ts';

/** The name the system we replace uses too: its chain is taken over in place, without a gap. */
export const CHAIN = 'aad-metadata';

/** What table `nat` holds of ours. */
export interface NatState {
  readonly hasChain: boolean;
  /** The text of each rule of our chain, after `-A aad-metadata `. */
  readonly chain: readonly string[];
  /** Positions in PREROUTING, from 1, of the unconditional jumps to our chain. */
  readonly jumps: readonly number[];
  /** Rules of others that lead into our chain: they keep it from being deleted. */
  readonly otherReferences: readonly string[];
}

const JUMP = `-j ${CHAIN}`;

/** The rules of our chain for a target, in order, exactly as `iptables-save` prints them. */
export function wantedChain(target: RedirectTarget): readonly string[] {
  return [
    `! -s 127.0.0.1/32 -d ${target.metadataIp}/32 -p tcp -m tcp --dport ${target.metadataPort} ` +
      `-j DNAT --to-destination ${target.listenIp}:${target.listenPort}`,
    '-j RETURN',
  ];
}

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
    if (line.startsWith(`:${CHAIN} `)) hasChain = true;
    if (!line.startsWith('-A ')) continue;
    if (line.startsWith('-A PREROUTING ')) position += 1;
    if (line === `-A PREROUTING ${JUMP}`) jumps.push(position);
    else if (line.startsWith(`-A ${CHAIN} `)) chain.push(line.slice(CHAIN.length + 4));
    else if (line.endsWith(` ${JUMP}`) || line.endsWith(` -g ${CHAIN}`)) otherReferences.push(line);
  }
  return { hasChain, chain, jumps, otherReferences };
}

/** Nothing of ours is there. */
export function isAbsent(state: NatState): boolean {
  return !state.hasChain && state.jumps.length === 0;
}

const MAX_SENTENCES = 5;

/** What differs from the wanted state, as short sentences; empty when nothing does. */
export function diffNat(state: NatState, target: RedirectTarget): readonly string[] {
  return [...diffChain(state, wantedChain(target)), ...diffJumps(state)];
}

function diffChain({ hasChain, chain }: NatState, wanted: readonly string[]): readonly string[] {
  if (!hasChain) return [`chain ${CHAIN} missing`];
  if (chain.join('\n') === wanted.join('\n')) return [];
  const problems = [
    ...wanted.filter((text) => !chain.includes(text)).map((text) => `rule missing: ${text}`),
    ...chain.filter((text) => !wanted.includes(text)).map((text) => `unexpected rule: ${text}`),
  ];
  if (problems.length === 0) return [`rules of ${CHAIN} are repeated or out of order`];
  if (problems.length <= MAX_SENTENCES) return problems;
  const rest = problems.length - MAX_SENTENCES;
  return [...problems.slice(0, MAX_SENTENCES), `${rest} more unexpected rules`];
}

function diffJumps(state: NatState): readonly string[] {
  const [first] = state.jumps;
  if (first === undefined) return [`jump to ${CHAIN} missing from PREROUTING`];
  const problems: string[] = [];
  if (first !== 1) problems.push(`jump is at position ${first}, not first`);
  if (state.jumps.length > 1) problems.push(`jump stands ${state.jumps.length} times, not once`);
  return problems;
}

/** One transaction and, for people, what it changes. */
export interface Transaction {
  readonly script: string;
  readonly changes: readonly string[];
}

/**
 * The transaction that leads from `state` to the wanted state, or `undefined` when it is there.
 *
 * Declaring the chain empties it, and the new rules take effect in the same commit: a chain of
 * ours or of the system we replace is exchanged without a moment in between.
 */
export function renderInstall(state: NatState, target: RedirectTarget): Transaction | undefined {
  const lines: string[] = [];
  const changes: string[] = [];
  const wanted = wantedChain(target);
  if (diffChain(state, wanted).length > 0) {
    lines.push(`:${CHAIN} - [0:0]`);
    for (const rule of wanted) lines.push(`-A ${CHAIN} ${rule}`);
    changes.push(state.hasChain ? `chain ${CHAIN} rewritten` : `chain ${CHAIN} made`);
  }
  if (diffJumps(state).length > 0) {
    for (const _ of state.jumps) lines.push(`-D PREROUTING ${JUMP}`);
    lines.push(`-I PREROUTING 1 ${JUMP}`);
    changes.push(state.jumps.length === 0 ? 'jump added' : 'jump moved to the first place, once');
  }
  return lines.length === 0 ? undefined : { script: renderTransaction(lines), changes };
}

/**
 * The transaction that takes away chain and jumps, or `undefined` when there is nothing.
 * Where a rule of somebody else leads into the chain, the chain stays, empty.
 */
export function renderRemove(state: NatState): Transaction | undefined {
  if (isAbsent(state)) return undefined;
  const pinned = state.otherReferences.length > 0;
  if (pinned && state.chain.length === 0 && state.jumps.length === 0) return undefined;
  const lines = state.jumps.map(() => `-D PREROUTING ${JUMP}`);
  lines.push(`-F ${CHAIN}`);
  if (!pinned) lines.push(`-X ${CHAIN}`);
  const change = pinned ? `chain ${CHAIN} emptied` : `chain ${CHAIN} removed`;
  return { script: renderTransaction(lines), changes: [change] };
}

function renderTransaction(lines: readonly string[]): string {
  return ['*nat', ...lines, 'COMMIT', ''].join('\n');
}
