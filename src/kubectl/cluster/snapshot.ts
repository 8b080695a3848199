/** The objects of a cluster. Other kinds than pods and the three of identities are optional. */
import type { RawObject } from '../base/object.ts';
import { valueOf, type Kubectl, type Scope } from '../transport/kubectl.ts';
import type { AgentView } from './agents.ts';
import { identityGrants, identityResources, workloadResources } from './resources.ts';
import { readAgents, type AgentAccess } from './trusted-agents.ts';
import { describeUnread, losses, mergeUnread, valueOrUnread, type Unread } from './unread.ts';

export interface Snapshot {
  /** The requested namespace; undefined is all. */
  readonly scope: Scope;
  readonly pods: readonly RawObject[];
  readonly identities: readonly RawObject[];
  readonly bindings: readonly RawObject[];
  readonly exceptions: readonly RawObject[];
  readonly workloads: readonly RawObject[];
  readonly policies: readonly RawObject[];
  readonly accounts: readonly RawObject[];
  /** Undefined when the user may not read them, or the kind is not installed. */
  readonly grants: readonly RawObject[] | undefined;
  readonly agents: readonly AgentView[] | undefined;
  readonly nodes?: readonly RawObject[] | undefined;
  readonly unread: readonly Unread[];
}

/** Kinds that a report uses if it may, with what is unknown without them. */
export const optionalKinds: readonly (readonly [resource: string, loses: string])[] = [
  ['networkpolicies.networking.k8s.io', losses.policies],
  ['serviceaccounts', losses.accounts],
  [identityGrants, losses.grants],
  ...workloadResources.map((resource) => [resource, losses.workloads] as const),
];

export async function readSnapshot(access: AgentAccess, scope: Scope): Promise<Snapshot> {
  const { kubectl } = access;
  const unread: Unread[] = [];
  const where = scope === undefined ? 'in all namespaces' : `in namespace ${scope}`;
  const needed = Promise.allSettled([
    kubectl.list('pods', scope).then((read) => valueOf(read, `list pods ${where}`)),
    readKind(kubectl, identityResources.identities, scope, unread),
    readKind(kubectl, identityResources.bindings, scope, unread),
    readKind(kubectl, identityResources.exceptions, scope, unread),
  ]);
  const [agents, ...optional] = await Promise.all([
    readAgents(access),
    ...optionalKinds.map(async ([resource, loses]) => {
      const of = resource === identityGrants ? undefined : scope;
      const read = await kubectl.list(resource, of);
      return valueOrUnread(read, `list ${resource}`, loses, unread);
    }),
  ]);
  // Reports the failure of the first kind in this order, whichever failed first.
  const [pods = [], identities = [], bindings = [], exceptions = []] = (await needed).map(
    settledValue,
  );
  const [policies, accounts, grants, ...workloads] = optional;
  return {
    scope,
    pods,
    identities,
    bindings,
    exceptions,
    policies: policies ?? [],
    accounts: accounts ?? [],
    grants,
    agents: valueOrUnread(agents, 'list pods', losses.agents, unread),
    workloads: workloads.flatMap((each) => each ?? []),
    unread: mergeUnread(unread),
  };
}

export function settledValue<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'fulfilled') return result.value;
  throw result.reason;
}

/** Of all namespaces if the user may: a binding in the wrong namespace is a frequent mistake. */
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
  unread.push(describeUnread(`list ${resource} of all namespaces`, all, losses.elsewhere));
  return valueOf(await kubectl.list(resource, scope), `list ${resource} in namespace ${scope}`);
}
