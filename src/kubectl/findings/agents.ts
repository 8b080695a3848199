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
import { versionOf, type AgentView } from '../cluster/agents.ts';
import { createFinding, type Finding } from '../../nmi/diagnosis/finding.ts';

/** The agents run on Linux and on nodes that are machines. */
export function nodesOfAgents(nodes: readonly RawObject[]): readonly RawObject[] {
  return nodes.filter((node) => {
    const labels = labelsOf(node);
    const system = labels.get('kubernetes.io/os') ?? 'linux';
    return system === 'linux' && labels.get('type') !== 'virtual-kubelet';
  });
}

/** @param nodes undefined if they could not be read: then nothing is known of those without an agent. */
export function examineAgents(
  nodes: readonly RawObject[] | undefined,
  agents: readonly AgentView[],
): readonly Finding[] {
  const own = agents.filter(({ isOldNmi }) => !isOldNmi);
  const versions = new Set(own.map(versionOf));
  const linux = nodesOfAgents(nodes ?? []);
  return [
    ...(nodes !== undefined && linux.length === 0
      ? [
          createFinding('nodes_missing', {
            object: 'Cluster',
            text: 'No Linux node is in the cluster.',
          }),
        ]
      : []),
    ...linux.flatMap((node) => ofNode(node, own)),
    ...agents.flatMap(ofAgent),
    ...(versions.size > 1
      ? [
          createFinding('agent_versions', {
            object: 'Cluster',
            text: `Agents of the versions ${[...versions].toSorted().join(', ')} run.`,
          }),
        ]
      : []),
  ];
}

/** These nodes and the agents on them. */
export function examineNodes(
  nodes: readonly RawObject[],
  agents: readonly AgentView[],
): readonly Finding[] {
  const own = agents.filter(({ isOldNmi }) => !isOldNmi);
  const names = new Set(nodes.map(nameOf));
  return [
    ...nodesOfAgents(nodes).flatMap((node) => ofNode(node, own)),
    ...agents.filter(({ node }) => names.has(node)).flatMap(ofAgent),
  ];
}

function ofNode(node: RawObject, agents: readonly AgentView[]): readonly Finding[] {
  const name = nameOf(node);
  const object = `Node ${name}`;
  const here = agents.filter((agent) => agent.node === name);
  const kernel = stringAt(asRecord(statusOf(node)['nodeInfo']), 'kernelVersion');
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  return [
    ...(here.length === 0
      ? [createFinding('agent_missing', { object, text: 'No pod of the agent is on the node.' })]
      : []),
    ...(here.length > 1
      ? [
          createFinding('agents_on_node', {
            object,
            text: `The agents ${here.map((each) => `${each.namespace}/${each.name}`).join(' and ')} are on the node.`,
          }),
        ]
      : []),
    ...(kernel !== '' && (major < 5 || (major === 5 && minor < 10))
      ? [createFinding('kernel_old', { object, text: `The node has the kernel ${kernel}.` })]
      : []),
  ];
}

function ofAgent(agent: AgentView): readonly Finding[] {
  const object = `Pod ${agent.namespace}/${agent.name}`;
  if (agent.isOldNmi) {
    return [
      createFinding('old_nmi', {
        object,
        text: `NMI of aad-pod-identity (${agent.image}) runs on node ${agent.node}.`,
      }),
    ];
  }
  if (agent.isReady) return [];
  if (/^(?:ErrImagePull|ImagePullBackOff|InvalidImageName)/.test(agent.problem)) {
    return [
      createFinding('image_not_pulled', {
        object,
        text: `Node ${agent.node} cannot pull ${agent.image}: ${agent.problem}`,
      }),
    ];
  }
  return [
    createFinding('agent_not_ready', {
      object,
      text: `The agent of node ${agent.node} is not ready: ${agent.problem}`,
      fix: `kubectl nmi logs --node ${agent.node}`,
    }),
  ];
}

/** Leftovers of the standard mode of aad-pod-identity. */
export function findMic(pods: readonly RawObject[]): readonly Finding[] {
  const mic = pods.filter((pod) =>
    recordsAt(specOf(pod), 'containers').some((each) =>
      /\/mic(?:[:@]|$)/.test(stringAt(each, 'image')),
    ),
  );
  return mic.map((pod) =>
    createFinding('old_mic', {
      object: `Pod ${titleOf(pod)}`,
      text: 'It runs the MIC of aad-pod-identity.',
    }),
  );
}
