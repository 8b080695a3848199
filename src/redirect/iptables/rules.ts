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

export type ChainRule =
  | ({ readonly kind: 'dnat' } & RedirectTarget)
  | { readonly kind: 'return' }
  /** Not one of those we make; its text as printed. */
  | { readonly kind: 'other'; readonly text: string };

/** What table `nat` holds of ours. */
export interface NatState {
  readonly hasChain: boolean;
  readonly chain: readonly ChainRule[];
  /** Positions in PREROUTING, from 1, of the unconditional jumps to our chain. */
  readonly jumps: readonly number[];
  /** Rules of others that lead into our chain: they keep it from being deleted. */
  readonly otherReferences: readonly string[];
}

const JUMP = `-j ${CHAIN}`;

/** The rules of our chain for a target, in order. */
export function wantedChain(target: RedirectTarget): readonly ChainRule[] {
  return [{ kind: 'dnat', ...target }, { kind: 'return' }];
}

/** The text of a rule after `-A aad-metadata `, exactly as `iptables-save` prints it. */
export function renderRule(rule: ChainRule): string {
  switch (rule.kind) {
    case 'dnat':
      return (
        `! -s 127.0.0.1/32 -d ${rule.metadataIp}/32 -p tcp -m tcp --dport ${rule.metadataPort} ` +
        `-j DNAT --to-destination ${rule.listenIp}:${rule.listenPort}`
      );
    case 'return':
      return '-j RETURN';
    case 'other':
      return rule.text;
  }
}

const DNAT_RULE =
  /^! -s 127\.0\.0\.1\/32 -d ([\d.]+)\/32 -p tcp -m tcp --dport (\d{1,5}) -j DNAT --to-destination ([\d.]+):(\d{1,5})$/;

/** Reads one rule of our chain. Never throws: anything unknown is `other`. */
export function parseRule(text: string): ChainRule {
  if (text === '-j RETURN') return { kind: 'return' };
  const match = DNAT_RULE.exec(text);
  if (match === null) return { kind: 'other', text };
  const [, metadataIp, metadataPort, listenIp, listenPort] = match;
  if (metadataIp === undefined || listenIp === undefined) return { kind: 'other', text };
  const rule: ChainRule = {
    kind: 'dnat',
    metadataIp,
    metadataPort: Number(metadataPort),
    listenIp,
    listenPort: Number(listenPort),
  };
  // A text that we would not have printed ("dport 0080") is not our rule.
  return renderRule(rule) === text ? rule : { kind: 'other', text };
}

/** Reads the output of `iptables-save -t nat`. Never throws; linear in the text. */
export function parseNat(save: string): NatState {
  let inNat = false;
  let hasChain = false;
  let position = 0;
  const chain: ChainRule[] = [];
  const jumps: number[] = [];
  const otherReferences: string[] = [];
  for (const line of save.split('\n')) {
    if (line.startsWith('*')) inNat = line === '*nat';
    if (!inNat) continue;
    if (line.startsWith(`:${CHAIN} `)) hasChain = true;
    if (!line.startsWith('-A ')) continue;
    if (line.startsWith('-A PREROUTING ')) position += 1;
    if (line === `-A PREROUTING ${JUMP}`) jumps.push(position);
    else if (line.startsWith(`-A ${CHAIN} `)) chain.push(parseRule(line.slice(CHAIN.length + 4)));
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

function diffChain(state: NatState, wantedRules: readonly ChainRule[]): readonly string[] {
  if (!state.hasChain) return [`chain ${CHAIN} missing`];
  const wanted = wantedRules.map(renderRule);
  const actual = state.chain.map(renderRule);
  if (sameLines(actual, wanted)) return [];
  const problems = [
    ...wanted.filter((text) => !actual.includes(text)).map((text) => `rule missing: ${text}`),
    ...actual.filter((text) => !wanted.includes(text)).map((text) => `unexpected rule: ${text}`),
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

function sameLines(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((text, index) => text === right[index]);
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
    for (const rule of wanted) lines.push(`-A ${CHAIN} ${renderRule(rule)}`);
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
