/**
 * The rule that marks packets of connections that go straight, so that the guard lets them by. It
 * asks the program that knows their sockets, with each packet.
 *
 * A chain of its own: a rule that names a pinned program can be deleted by its text only while the pin
 * is there, a chain can be emptied always. In table `raw`, because in `mangle` some networks accept
 * the later packets of a connection before anybody else sees them. Pure text in and out.
 */
import type { RedirectTarget } from '../redirect.ts';
import { straightSelector, type Transaction } from './rules.ts';

const CHAIN = 'nmi-straight';
const JUMP = `-j ${CHAIN}`;

/**
 * The bit of the mark that the guard goes by. None of kube-proxy's (0x4000, 0x8000), Calico's
 * (0xffff0000), Cilium's (0x0f00), Azure's network policies (0x3000) or the AWS plugin's (0x80).
 */
export const STRAIGHT_MARK = { value: '0x40', mask: '0x40' } as const;

/** Only what the program knows has the bit afterwards, whoever gave it to a packet before. */
function wantedRules(target: RedirectTarget, pin: string): readonly string[] {
  const { value, mask } = STRAIGHT_MARK;
  const { metadataIp } = target;
  return [
    `-A ${CHAIN} -d ${metadataIp}/32 -j MARK --set-xmark 0x0/${mask}`,
    `-A ${CHAIN} ${straightSelector(target, pin)} -j MARK --set-xmark ${value}/${mask}`,
  ];
}

interface Present {
  readonly hasChain: boolean;
  readonly rules: readonly string[];
  readonly jumps: number;
}

function parse(save: string): Present {
  const lines = save.split('\n');
  return {
    hasChain: lines.some((line) => line.startsWith(`:${CHAIN} `)),
    rules: lines.filter((line) => line.startsWith(`-A ${CHAIN} `)),
    jumps: lines.filter((line) => line === `-A PREROUTING ${JUMP}`).length,
  };
}

/** What differs, as short sentences. @param pin of the program; undefined when none is wanted. */
export function diffStraight(
  save: string,
  target: RedirectTarget,
  pin: string | undefined,
): readonly string[] {
  const { hasChain, rules, jumps } = parse(save);
  if (pin === undefined) return hasChain ? [`chain ${CHAIN} is not wanted`] : [];
  if (!hasChain) return [`chain ${CHAIN} missing`];
  const isRight = rules.join('\n') === wantedRules(target, pin).join('\n');
  return [
    ...(isRight ? [] : [`rules of ${CHAIN} are others`]),
    ...(jumps === 1 ? [] : [`jump to ${CHAIN} stands ${jumps} times, not once`]),
  ];
}

/** The transaction that makes it so, or undefined when it is. */
export function renderStraight(
  save: string,
  target: RedirectTarget,
  pin: string | undefined,
): Transaction | undefined {
  if (diffStraight(save, target, pin).length === 0) return undefined;
  const { jumps } = parse(save);
  const lines = Array.from({ length: jumps }, () => `-D PREROUTING ${JUMP}`);
  if (pin === undefined) lines.push(`-F ${CHAIN}`, `-X ${CHAIN}`);
  else {
    lines.push(`:${CHAIN} - [0:0]`, ...wantedRules(target, pin), `-I PREROUTING 1 ${JUMP}`);
  }
  return {
    script: ['*raw', ...lines, 'COMMIT', ''].join('\n'),
    changes: [`chain ${CHAIN} ${pin === undefined ? 'removed' : 'made'}`],
  };
}
