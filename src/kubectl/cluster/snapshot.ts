/** The objects of a cluster. Other kinds than pods and the three of identities are optional. */
import type { RawObject } from '../base/object.ts';
import { valueOf, type KindLists, type Read, type Scope } from '../transport/kubectl.ts';
import type { AgentView } from './agents.ts';
import { identityGrants, identityResources, workloadResources } from './resources.ts';
import type { SourceReports } from './source-reports.ts';
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
  readonly reports?: SourceReports | undefined;
  readonly unread: readonly Unread[];
}

/** The objects of a namespace, without its pods. */
export type Nearby = Omit<Snapshot, 'pods' | 'agents' | 'scope' | 'reports'>;

/** Kinds that a report uses if it may, with what is unknown without them. */
const optionalKinds: readonly (readonly [resource: string, loses: string])[] = [
  ['networkpolicies.networking.k8s.io', losses.policies],
  ['serviceaccounts', losses.accounts],
  [identityGrants, losses.grants],
  ...workloadResources.map((resource) => [resource, losses.workloads] as const),
];

const identityKinds: readonly string[] = Object.values(identityResources);
export const nearbyKinds = [...identityKinds, ...optionalKinds.map(([resource]) => resource)];

/** @throws PluginError when one of the three kinds cannot be read. */
export function nearbyOf(
  lists: KindLists,
  unread: Unread[],
  whereOf: (resource: string) => string,
): Nearby {
  const listOf = (resource: string) => {
    const read = lists.get(resource);
    if (read === undefined) throw new TypeError(`${resource} was not listed`);
    return read;
  };
  const needed = (resource: string) =>
    valueOf(listOf(resource), `list ${resource}${whereOf(resource)}`);
  const optional = new Map(
    optionalKinds.map(([resource, loses]) => [
      resource,
      valueOrUnread(listOf(resource), `list ${resource}`, loses, unread),
    ]),
  );
  return {
    identities: needed(identityResources.identities),
    bindings: needed(identityResources.bindings),
    exceptions: needed(identityResources.exceptions),
    policies: optional.get('networkpolicies.networking.k8s.io') ?? [],
    accounts: optional.get('serviceaccounts') ?? [],
    grants: optional.get(identityGrants),
    workloads: workloadResources.flatMap((resource) => optional.get(resource) ?? []),
    unread,
  };
}

/** @throws PluginError when pods or one of the three kinds cannot be read. */
export async function readSnapshot(access: AgentAccess, scope: Scope): Promise<Snapshot> {
  const { kubectl } = access;
  const unread: Unread[] = [];
  const narrow = new Set<string>();
  const where = scope === undefined ? '' : ` in namespace ${scope}`;
  const read = async (resource: string): Promise<[string, Read<readonly RawObject[]>]> => {
    const isIdentity = identityKinds.includes(resource);
    const own = isIdentity || resource === identityGrants ? undefined : scope;
    const list = await kubectl.list(resource, own);
    const isForbidden = !list.ok && list.failure.kind === 'forbidden';
    if (!isForbidden || !isIdentity || scope === undefined) return [resource, list];
    // Of all namespaces if the user may: a binding in the wrong one is a frequent mistake.
    unread.push(
      describeUnread(`list ${resource} of all namespaces`, list.failure, losses.elsewhere),
    );
    narrow.add(resource);
    return [resource, await kubectl.list(resource, scope)];
  };
  const [pods, agents, lists] = await Promise.all([
    kubectl.list('pods', scope),
    readAgents(access),
    Promise.all(nearbyKinds.map(read)),
  ]);
  return {
    scope,
    pods: valueOf(pods, `list pods${where || ' in all namespaces'}`),
    ...nearbyOf(new Map(lists), unread, (resource) => (narrow.has(resource) ? where : '')),
    agents: valueOrUnread(agents, 'list pods', losses.agents, unread),
    unread: mergeUnread(unread),
  };
}
