/** What a report does not know, and what would show it. */
import type { Read } from '../transport/kubectl.ts';
import {
  renderRules,
  toPluginError,
  type KubectlFailure,
  type RbacRule,
} from '../transport/kubectl-failure.ts';

export interface Unread {
  readonly what: string;
  readonly why: string;
  /** What is unknown without it. */
  readonly loses: string;
  readonly rules?: readonly RbacRule[];
}

export const losses = {
  policies: 'network policies',
  accounts: 'service accounts',
  grants: 'identity grants',
  workloads: 'owners of pods',
  agents: 'options and state of the agents',
  elsewhere: 'objects of other namespaces',
  twins: 'pods with the same address',
  nodes: 'nodes',
  refusals: 'refusals of the last hour',
  rights: 'rights of the agents',
} as const;

export function describeUnread(what: string, failure: KubectlFailure, loses: string): Unread {
  if (failure.kind !== 'forbidden')
    return { what, why: toPluginError(failure, what).message, loses };
  return { what, why: whyForbidden([failure.rule]), loses, rules: [failure.rule] };
}

export function valueOrUnread<T>(
  read: Read<T>,
  what: string,
  loses: string,
  unread: Unread[],
): T | undefined {
  if (read.ok) return read.value;
  unread.push(describeUnread(what, read.failure, loses));
  return undefined;
}

/** In a fixed order, whichever read ended first; what is unknown without several reads is one. */
export function mergeUnread(unread: readonly Unread[]): readonly Unread[] {
  const sorted = unread.toSorted((one, other) => (one.what < other.what ? -1 : 1));
  const isForbidden = ({ rules = [] }: Unread) => rules.length > 0;
  const groups = Map.groupBy(
    sorted,
    (each) => `${each.loses}\n${isForbidden(each) ? '' : each.why}`,
  );
  return [...groups.values()].map((each): Unread => {
    const rules = each.flatMap((one) => one.rules ?? []);
    const what = [...new Set(each.map((one) => one.what))].join(', ');
    const { loses, why } = each[0] ?? { loses: '', why: '' };
    return rules.length === 0
      ? { what, why, loses }
      : { what, why: whyForbidden(rules), loses, rules };
  });
}

/** What several checks lack is one. */
export function mergeCauses(unread: readonly Unread[]): readonly Unread[] {
  const groups = Map.groupBy(unread, ({ what, why }) => `${what} ${why}`);
  return [...groups.values()].flatMap((same) => {
    const loses = same.map((each) => each.loses).join(', ');
    return same.slice(0, 1).map((each) => ({ ...each, loses }));
  });
}

export function renderUnread(unread: readonly Unread[]): readonly string[] {
  if (unread.length === 0) return [];
  const lines = [...Map.groupBy(unread, ({ loses }) => loses)].flatMap(([loses, each]) => [
    `  ${loses}`,
    ...each.map(({ what, why }) => `    cannot ${what}: ${why}`),
  ]);
  return ['', 'Not checked:', ...lines];
}

/** In one line, for a verb whose flag -v shows all. */
export function countUnread(unread: readonly Unread[]): readonly string[] {
  if (unread.length === 0) return [];
  return [
    `Not checked (${unread.length}; -v shows why): ${unread.map(({ loses }) => loses).join('; ')}.`,
  ];
}

function whyForbidden(rules: readonly RbacRule[]): string {
  return `no right; RBAC rule: ${renderRules(rules)}`;
}
