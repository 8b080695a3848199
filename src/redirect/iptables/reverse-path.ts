/**
 * The check of source addresses, as far as netfilter can give it: what comes to the metadata address
 * or to the agent by another link than the one its source is reached by is dropped. A pod with a
 * link of its own cannot take another pod's address then. Pods on a common bridge can: their
 * addresses are all reached by the bridge.
 *
 * Two rules in PREROUTING of table `mangle`, where such a match is allowed. Pure text in and out.
 */
import type { Transaction } from './rules.ts';
import type { RedirectTarget } from '../redirect.ts';

const CHAIN = 'PREROUTING';
/** By which these rules are known to be ours, whatever target they were made for. */
const MARK = '-m comment --comment nmi-reverse-path';

/** As `iptables-save` prints them after `-A PREROUTING `. */
function wantedChecks(target: RedirectTarget): readonly string[] {
  const { metadataIp, metadataPort, listenIp, listenPort } = target;
  const check = (ip: string, port: number) =>
    `-d ${ip}/32 -p tcp -m tcp --dport ${port} -m rpfilter --invert ${MARK} -j DROP`;
  return [check(metadataIp, metadataPort), check(listenIp, listenPort)];
}

/** In the order they stand in. */
function ownRules(save: string): readonly string[] {
  const start = `-A ${CHAIN} `;
  return save
    .split('\n')
    .filter((line) => line.startsWith(start) && line.includes(` ${MARK} `))
    .map((line) => line.slice(start.length));
}

/** What differs from the wanted rules, as short sentences. @param save of table `mangle`. */
export function diffReversePath(save: string, target: RedirectTarget): readonly string[] {
  const present = ownRules(save);
  return wantedChecks(target)
    .filter((rule) => !present.includes(rule))
    .map((rule) => `check of the reverse path missing: ${rule}`);
}

/** The transaction that makes it so, or undefined when it is. Each rule stands once, and first. */
export function renderReversePath(
  save: string,
  target: RedirectTarget,
  isWanted: boolean,
): Transaction | undefined {
  const wanted = isWanted ? wantedChecks(target) : [];
  const present = ownRules(save);
  if (present.toSorted().join('\n') === wanted.toSorted().join('\n')) return undefined;
  const lines = [
    ...present.map((rule) => `-D ${CHAIN} ${rule}`),
    ...wanted.map((rule) => `-I ${CHAIN} 1 ${rule}`),
  ];
  return {
    script: ['*mangle', ...lines, 'COMMIT', ''].join('\n'),
    changes: [`check of the reverse path ${isWanted ? 'added' : 'removed'}`],
  };
}

const COUNTED = new RegExp(`^\\[(\\d+):\\d+\\] -A ${CHAIN} .* ${MARK} -j DROP$`, 'gm');

/** Packets that the rules dropped. @param save of `iptables-save -c -t mangle`. */
export function countDropped(save: string): number {
  return [...save.matchAll(COUNTED)].reduce((sum, [, count]) => sum + Number(count), 0);
}
