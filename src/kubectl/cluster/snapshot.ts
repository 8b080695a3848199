/**
 * The objects of a cluster, read at one moment. Pods and the three identity kinds are required.
 * Other kinds are used if the user may read them, and reported as unread if not.
 */
import type { RawObject } from '../base/object.ts';
import { valueOf, type Kubectl, type Read, type Scope } from '../transport/kubectl.ts';
import { renderRule, toPluginError } from '../transport/kubectl-failure.ts';
import type { AgentView } from './agents.ts';
import { identityGrants, identityResources, workloadResources } from './resources.ts';
import { readAgents, type AgentAccess } from './trusted-agents.ts';

/** Something that was not read. */
export interface Unread {
  readonly what: string;
  readonly why: string;
  /** What is unknown without it. */
  readonly loses: string;
}

export interface Identities {
  readonly identities: readonly RawObject[];
  readonly bindings: readonly RawObject[];
  readonly exceptions: readonly RawObject[];
}

export interface Snapshot extends Identities {
  /** The requested namespace; undefined is all. */
  readonly scope: Scope;
  readonly pods: readonly RawObject[];
  readonly workloads: readonly RawObject[];
  readonly policies: readonly RawObject[];
  readonly accounts: readonly RawObject[];
  /** Undefined when the user may not read them, or the kind is not installed. */
  readonly grants: readonly RawObject[] | undefined;
  /** Undefined when the user may not read them. */
  readonly agents: readonly AgentView[] | undefined;
  readonly unread: readonly Unread[];
}

/** @throws PluginError when pods or one of the three kinds cannot be read. */
export async function readSnapshot(access: AgentAccess, scope: Scope): Promise<Snapshot> {
  const { kubectl } = access;
  const unread: Unread[] = [];
  const optional = async (resource: string, where: Scope, loses: string) =>
    valueOrUnread(await kubectl.list(resource, where), `list ${resource}`, loses, unread);
  const where = scope === undefined ? 'in all namespaces' : `in namespace ${scope}`;
  const needed = Promise.allSettled([
    kubectl.list('pods', scope).then((read) => valueOf(read, `list pods ${where}`)),
    readKind(kubectl, identityResources.identities, scope, unread),
    readKind(kubectl, identityResources.bindings, scope, unread),
    readKind(kubectl, identityResources.exceptions, scope, unread),
  ]);
  const [policies, accounts, grants, agents, ...workloads] = await Promise.all([
    optional(
      'networkpolicies.networking.k8s.io',
      scope,
      'whether network policies let pods reach the agent',
    ),
    optional('serviceaccounts', scope, 'annotations for Workload Identity'),
    optional(identityGrants, undefined, 'whether an identity belongs to its namespace'),
    readAgents(access),
    ...workloadResources.map((resource) =>
      optional(resource, scope, 'whether the label is on the owner and not on its pod template'),
    ),
  ]);
  // Reports the failure of the first kind in this order, whichever failed first.
  const [pods = [], identities = [], bindings = [], exceptions = []] = (await needed).map(
    settledValue,
  );
  return {
    scope,
    pods,
    identities,
    bindings,
    exceptions,
    policies: policies ?? [],
    accounts: accounts ?? [],
    grants,
    agents: valueOrUnread(agents, 'list pods', 'options and state of the agents', unread),
    workloads: workloads.flatMap((each) => each ?? []),
    unread: mergeUnread(unread),
  };
}

function settledValue<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'fulfilled') return result.value;
  throw result.reason;
}

/**
 * Reads all namespaces if the user may: a binding in the wrong namespace is a frequent mistake.
 * @throws PluginError
 */
async function readKind(
  kubectl: Kubectl,
  resource: string,
  scope: Scope,
  unread: Unread[],
): Promise<readonly RawObject[]> {
  const all = await kubectl.list(resource, undefined);
  if (all.ok || scope === undefined || all.failure.kind !== 'forbidden') {
    return valueOf(all, `list ${resource}`);
  }
  unread.push(
    describeUnread(`list ${resource} of all namespaces`, all, 'objects in the wrong namespace'),
  );
  return valueOf(await kubectl.list(resource, scope), `list ${resource} in namespace ${scope}`);
}

export function describeUnread(
  what: string,
  read: Extract<Read<unknown>, { ok: false }>,
  loses: string,
): Unread {
  const { failure } = read;
  const why =
    failure.kind === 'forbidden'
      ? `no right; RBAC rule: ${renderRule(failure.rule)}`
      : toPluginError(failure, what).message;
  return { what, why, loses };
}

/** The value, or undefined after a line about the loss in `unread`. */
export function valueOrUnread<T>(
  read: Read<T>,
  what: string,
  loses: string,
  unread: Unread[],
): T | undefined {
  if (read.ok) return read.value;
  unread.push(describeUnread(what, read, loses));
  return undefined;
}

/** In a fixed order, whichever read ended first. The kinds of owners are merged into one line. */
function mergeUnread(unread: readonly Unread[]): readonly Unread[] {
  const sorted = unread.toSorted((one, other) => (one.what < other.what ? -1 : 1));
  const byLoss = Map.groupBy(sorted, ({ loses }) => loses);
  return [...byLoss].flatMap(([loses, each]) =>
    each.length < 3
      ? each
      : [{ loses, what: each.map(({ what }) => what).join(', '), why: each[0]?.why ?? '' }],
  );
}
