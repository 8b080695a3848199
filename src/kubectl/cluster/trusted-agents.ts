/** An agent is a pod that a DaemonSet of agents controls: everybody can give a pod their label. */
import { stringAt } from '../../base/json-value.ts';
import {
  labelsOf,
  metadataOf,
  namespaceOf,
  recordsAt,
  templateOf,
  type RawObject,
} from '../base/object.ts';
import type { Kubectl, Read } from '../transport/kubectl.ts';
import { toPluginError } from '../transport/kubectl-failure.ts';
import { beginsWith, viewAgent, type AgentView } from './agents.ts';

export interface AgentAccess {
  readonly kubectl: Kubectl;
  /** The only namespace whose pods can be agents. */
  readonly agentNamespace: string;
  readonly warn: (text: string) => void;
}

/** Of the agents' pods, whichever manifest or chart installed them, the AKS add-on included. */
const [labelName, labelValue] = ['component', 'nmi'];
export const agentSelector = `${labelName}=${labelValue}`;
const maxNamed = 5;

export async function readAgents(access: AgentAccess): Promise<Read<readonly AgentView[]>> {
  const { kubectl, agentNamespace } = access;
  const [pods, daemonSets] = await Promise.all([
    readLabeledPods(access),
    kubectl.list('daemonsets.apps', agentNamespace),
  ]);
  return pods.ok ? { ok: true, value: chooseAgents(access, pods.value, daemonSets) } : pods;
}

/** Warns of pods with the label that are left out, and of agents that are not verified. */
export function chooseAgents(
  { agentNamespace, warn }: AgentAccess,
  labeled: readonly RawObject[],
  daemonSets: Read<readonly RawObject[]>,
): readonly AgentView[] {
  const isOurs = (set: RawObject) =>
    namespaceOf(set) === agentNamespace && isLabeled(templateOf(set) ?? {});
  const uidOf = (set: RawObject) => stringAt(metadataOf(set), 'uid');
  const uids = daemonSets.ok ? new Set(daemonSets.value.filter(isOurs).map(uidOf)) : undefined;
  const isAgent = (pod: RawObject) =>
    namespaceOf(pod) === agentNamespace && (uids?.has(controllerOf(pod)) ?? true);
  const own = labeled.filter(isAgent);
  const agents = own.filter((pod) => !beginsWith(pod, 'redirect remove'));
  const opened = own.length - agents.length;
  if (opened > 0) {
    warn(
      `nodes with a pod that opens them (uninstall.openNodes, open-nodes.yaml) instead of an agent: ${opened}. Pods there get the node's identities from the real metadata service.`,
    );
  }
  const ignored = labeled.filter((pod) => !isAgent(pod));
  if (ignored.length > 0) warn(describeIgnored(ignored, agentNamespace));
  if (!daemonSets.ok && agents.length > 0) {
    const what = `verify the agents: list daemonsets.apps in namespace ${agentNamespace}`;
    const { message, nextStep } = toPluginError(daemonSets.failure, what);
    warn(`${message}. They are read, but nothing is run in them or trusted. ${nextStep}`);
  }
  const isVerified = daemonSets.ok;
  return agents.map((pod) => ({ ...viewAgent(pod), isVerified }));
}

export function isLabeled(object: RawObject): boolean {
  return labelsOf(object).get(labelName) === labelValue;
}

/** Of all namespaces if the user may, for the sake of the warning. */
async function readLabeledPods({ kubectl, agentNamespace }: AgentAccess) {
  const options = { labelSelector: agentSelector };
  const all = await kubectl.list('pods', undefined, options);
  if (all.ok || all.failure.kind !== 'forbidden') return all;
  return kubectl.list('pods', agentNamespace, options);
}

/** The uid of the owner that manages the pod; 'none' if it has no such owner. */
export function controllerOf(pod: RawObject): string {
  const owners = recordsAt(metadataOf(pod), 'ownerReferences');
  const controller = owners.find((each) => each['controller'] === true);
  return controller === undefined ? 'none' : stringAt(controller, 'uid');
}

function describeIgnored(ignored: readonly RawObject[], agentNamespace: string): string {
  const counts = [...Map.groupBy(ignored, namespaceOf)].map(
    ([namespace, { length }]) => `${length} in ${namespace}`,
  );
  const named = counts.toSorted().slice(0, maxNamed).join(', ');
  const more = counts.length > maxNamed ? ` and ${counts.length - maxNamed} more namespaces` : '';
  return `ignored pods labelled ${agentSelector} that no DaemonSet of agents in namespace ${agentNamespace} controls: ${named}${more}. Agents in another namespace need --agent-namespace.`;
}
