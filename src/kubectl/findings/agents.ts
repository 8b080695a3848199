/** What is wrong with the agents of a cluster, from its nodes and their pods. Pure. */
import { asRecord, stringAt } from '../../base/json-value.ts';
import {
  labelsOf,
  nameOf,
  statusOf,
  titleOf,
  recordsAt,
  specOf,
  type RawObject,
} from '../base/object.ts';
import { servingAgents, versionOf, type AgentView } from '../cluster/agents.ts';
import { controllerOf } from '../cluster/trusted-agents.ts';
import type { Code } from '../../nmi/diagnosis/codes.ts';
import { createFinding, type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';

/** The agents run on Linux and on nodes that are machines. */
function nodesOfAgents(nodes: readonly RawObject[]): readonly RawObject[] {
  return nodes.filter((node) => {
    const labels = labelsOf(node);
    const system = labels.get('kubernetes.io/os') ?? 'linux';
    return system === 'linux' && labels.get('type') !== 'virtual-kubelet';
  });
}

/** @param nodes undefined if they could not be read. @param agents undefined before an installation. */
export function examineAgents(
  nodes: readonly RawObject[] | undefined,
  agents?: readonly AgentView[],
  elsewhere: readonly AgentView[] = [],
): readonly Finding[] {
  const own = (agents ?? []).filter(({ isOldNmi }) => !isOldNmi);
  const versions = [...new Set(own.map(versionOf))].toSorted();
  const isEmpty = nodes !== undefined && nodesOfAgents(nodes).length === 0;
  const text = `Agents of the versions ${versions.join(', ')} run.`;
  return [
    ...findIf(isEmpty, 'nodes_missing', 'Cluster', 'No Linux node is in the cluster.'),
    ...examineNodes(nodes ?? [], agents, elsewhere),
    ...ofAgents(agents ?? []),
    ...findIf(versions.length > 1, 'agent_versions', 'Cluster', text),
  ];
}

function findIf(applies: boolean, code: Code, object: string, text: string): readonly Finding[] {
  return applies ? oneFinding(code, { object, text }) : [];
}

/** @param elsewhere agents in other namespaces. */
export function examineNodes(
  nodes: readonly RawObject[],
  agents: readonly AgentView[] | undefined,
  elsewhere: readonly AgentView[] = [],
): readonly Finding[] {
  const served = agents && new Set(servingAgents(agents).keys());
  return nodesOfAgents(nodes).flatMap((node) => {
    const name = nameOf(node);
    const object = `Node ${name}`;
    const kernel = stringAt(asRecord(statusOf(node)['nodeInfo']), 'kernelVersion');
    // Before 5.10.
    const isOld = /^(?:[0-4]|5\.\d)(?!\d)/.test(kernel);
    const isMissing = served?.has(name) === false;
    return [
      ...findIf(isMissing, 'agent_missing', object, 'No pod of the agent is on the node.'),
      ...(isMissing ? [] : ofReleases(name, [...(agents ?? []), ...elsewhere])),
      ...findIf(isOld, 'kernel_old', object, `The node has the kernel ${kernel}.`),
    ];
  });
}

/** An update has two agents of one DaemonSet on a node for a while. */
export function ofReleases(node: string, agents: readonly AgentView[]): readonly Finding[] {
  const here = agents.filter((agent) => agent.node === node && !agent.isOldNmi);
  const sets = new Set(here.map(({ namespace, pod }) => `${namespace} ${controllerOf(pod)}`));
  const titles = here.map((each) => `${each.namespace}/${each.name}`).join(' and ');
  const text = `The agents ${titles} are on the node.`;
  return findIf(sets.size > 1, 'agents_on_node', `Node ${node}`, text);
}

export function ofAgents(agents: readonly AgentView[]): readonly Finding[] {
  const serving = servingAgents(agents);
  return agents.flatMap((agent) => {
    const other = serving.get(agent.node);
    if (agent.isOldNmi || agent === other || other?.isReady !== true) return ofAgent(agent);
    const details = [`Pod ${other.namespace}/${other.name} serves the node meanwhile.`];
    const findings = agent.isTerminating ? [] : ofAgent(agent);
    return findings.map((each) => ({ ...each, severity: 'warning', details }));
  });
}

export function ofAgent(agent: AgentView): readonly Finding[] {
  const { image, isOldNmi, isReady, node, problem } = agent;
  const object = `Pod ${agent.namespace}/${agent.name}`;
  if (isOldNmi) {
    const text = `NMI of aad-pod-identity (${image}) runs on node ${node}.`;
    return oneFinding('old_nmi', { object, text });
  }
  if (isReady) return [];
  if (/^(?:ErrImagePull|ImagePullBackOff|InvalidImageName)/.test(problem)) {
    const text = `Node ${node} cannot pull ${image}: ${problem}`;
    return oneFinding('image_not_pulled', { object, text });
  }
  const text = `The agent of node ${node} is not ready: ${problem}`;
  const fix = `See why: kubectl -n ${agent.namespace} logs ${agent.name} -c nmi`;
  return oneFinding('agent_not_ready', { object, text, fix });
}

export function findMic(pods: readonly RawObject[]): readonly Finding[] {
  const isMic = (each: RawObject) => /\/mic(?:[:@]|$)/.test(stringAt(each, 'image'));
  const mic = pods.filter((pod) => recordsAt(specOf(pod), 'containers').some(isMic));
  const text = 'It runs the MIC of aad-pod-identity.';
  return mic.map((pod) => createFinding('old_mic', { object: `Pod ${titleOf(pod)}`, text }));
}
