/** What one pod depends on, by four processes of kubectl as a rule, and one for Events. */
import { stringAt } from '../../base/json-value.ts';
import { namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import type { ofContext, Read } from '../transport/kubectl.ts';
import { defaultConfig, type AgentView } from './agents.ts';
import { createClusterState } from './cluster-state.ts';
import { identityResources } from './resources.ts';
import { nearbyKinds, nearbyOf, type Nearby, type Snapshot } from './snapshot.ts';
import { readSourceReports } from './source-reports.ts';
import { agentSelector, chooseAgents, isLabeled, type AgentAccess } from './trusted-agents.ts';
import { losses, mergeUnread, valueOrUnread } from './unread.ts';

type Pods = Read<readonly RawObject[]>;

const daemonSets = 'daemonsets.apps';
const kindsElsewhere = [...Object.values(identityResources), daemonSets];

export async function readNearby(
  { kubectl }: AgentAccess,
  scope: string | typeof ofContext,
): Promise<Nearby> {
  const lists = await kubectl.listKinds(nearbyKinds, scope);
  const where = typeof scope === 'string' ? ` in namespace ${scope}` : '';
  return nearbyOf(lists, [], () => where);
}

export async function readPodSnapshot(
  access: AgentAccess,
  pod: RawObject,
  nearby: Nearby,
  nowWallMs: number,
): Promise<Snapshot> {
  const scope = namespaceOf(pod);
  const alone: Snapshot = { ...nearby, scope, pods: [pod], agents: undefined };
  // By the objects alone: an option of the agent may still refuse a pod that is not.
  const explanation = createClusterState(alone, defaultConfig, nowWallMs).explainPod(pod);
  const isRefused = explanation?.requests[0]?.outcome.kind === 'refused';
  const isWide = nearby.grants !== undefined;
  const unread = [...alone.unread];
  const [elsewhere, neighbors, reports] = await Promise.all([
    isRefused ? access.kubectl.listKinds(kindsElsewhere, undefined) : undefined,
    readNeighbors(access, pod, { isWide, isRefused }),
    isRefused ? undefined : readSourceReports(access.kubectl, scope, nowWallMs, unread),
  ]);
  const withOthers = (resource: string, own: readonly RawObject[]) => {
    const read = elsewhere?.get(resource);
    const what = `list ${resource} of all namespaces`;
    return read === undefined ? own : (valueOrUnread(read, what, losses.elsewhere, unread) ?? own);
  };
  const labeled = valueOrUnread(neighbors.labeled, 'list pods', losses.agents, unread);
  const { identities, bindings, exceptions } = alone;
  const own = valueOrUnread(neighbors.own, 'list pods of its node', losses.twins, unread) ?? [];
  const agents =
    labeled === undefined ? undefined : await verify(access, labeled, elsewhere?.get(daemonSets));
  const name = stringAt(specOf(pod), 'nodeName');
  // It may be a Windows node.
  const isBare = agents?.length === 0 && name !== '';
  const node = isBare ? await access.kubectl.get('nodes', '', name) : undefined;
  const isGone = node?.ok === false && node.failure.kind === 'not-found';
  const found =
    node === undefined || isGone
      ? undefined
      : valueOrUnread(node, `get node ${name}`, losses.nodes, unread);
  return {
    ...alone,
    identities: withOthers(identityResources.identities, identities),
    bindings: withOthers(identityResources.bindings, bindings),
    exceptions: withOthers(identityResources.exceptions, exceptions),
    pods: [pod, ...own.filter((each) => titleOf(each) !== titleOf(pod))],
    agents,
    ...(found === undefined ? {} : { nodes: [found] }),
    reports,
    unread: mergeUnread(unread),
  };
}

/** @param isWide the user may list cluster-scoped objects, so probably the pods of a node. */
async function readNeighbors(
  { kubectl, agentNamespace }: AgentAccess,
  pod: RawObject,
  { isWide, isRefused }: { readonly isWide: boolean; readonly isRefused: boolean },
): Promise<{ readonly own: Pods; readonly labeled: Pods }> {
  const none: Pods = { ok: true, value: [] };
  const node = stringAt(specOf(pod), 'nodeName');
  if (node === '') return { own: none, labeled: none };
  const fieldSelector = `spec.nodeName=${node}`;
  const all = isWide ? await kubectl.list('pods', undefined, { fieldSelector }) : undefined;
  if (all?.ok === true) {
    return { own: all, labeled: { ok: true, value: all.value.filter(isLabeled) } };
  }
  const [own, labeled] = await Promise.all([
    isRefused ? none : kubectl.list('pods', namespaceOf(pod), { fieldSelector }),
    kubectl.list('pods', agentNamespace, { labelSelector: agentSelector, fieldSelector }),
  ]);
  return { own, labeled };
}

async function verify(
  access: AgentAccess,
  labeled: readonly RawObject[],
  everywhere: Pods | undefined,
): Promise<readonly AgentView[]> {
  if (labeled.length === 0) return [];
  const { kubectl, agentNamespace } = access;
  const sets =
    everywhere?.ok === true ? everywhere : await kubectl.list(daemonSets, agentNamespace);
  return chooseAgents(access, labeled, sets);
}
