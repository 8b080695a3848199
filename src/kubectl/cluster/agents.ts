/** The agents of a cluster, from their pods: node, state, version and options. */
import { asRecord, stringAt } from '../../base/json-value.ts';
import { parseConfig, type Config } from '../../nmi/config/config.ts';
import {
  conditionOf,
  labelsOf,
  metadataOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  statusOf,
  textsAt,
  type RawObject,
} from '../base/object.ts';

export interface AgentView {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly serviceAccount: string;
  /** A DaemonSet of agents controls the pod; from any other, nothing is trusted or executed. */
  readonly isVerified: boolean;
  readonly isReady: boolean;
  readonly isTerminating: boolean;
  readonly problem: string;
  readonly image: string;
  /** The NMI of aad-pod-identity and not this project's agent. */
  readonly isOldNmi: boolean;
  /** The options that it was started with; undefined if this program does not accept them. */
  readonly config: Config | undefined;
  readonly pod: RawObject;
}

export const unverified =
  'nothing proves that the pod is an agent: that needs list of daemonsets.apps in its namespace';

export const defaultConfig: Config = createDefaultConfig();

/** Not verified: only `trusted-agents.ts` does that. */
export function viewAgent(pod: RawObject): AgentView {
  const containers = recordsAt(specOf(pod), 'containers');
  const container = containers.find((each) => stringAt(each, 'name') === 'nmi') ?? containers[0];
  const condition = conditionOf(pod, 'Ready');
  const isReady = condition?.['status'] === 'True';
  const image = stringAt(container, 'image');
  return {
    namespace: namespaceOf(pod),
    name: nameOf(pod),
    node: stringAt(specOf(pod), 'nodeName'),
    serviceAccount: stringAt(specOf(pod), 'serviceAccountName') || 'default',
    isVerified: false,
    pod,
    isReady,
    isTerminating: 'deletionTimestamp' in metadataOf(pod),
    problem: isReady ? '' : problemOf(pod, stringAt(condition, 'message')),
    image,
    isOldNmi:
      /aad-pod-identity\/nmi/.test(image) ||
      (labelsOf(pod).get('app.kubernetes.io/component') !== 'nmi' && /\/nmi(?:[:@]|$)/.test(image)),
    config: readConfig(container),
  };
}

/**
 * The agent that serves each node: an update starts the next one beside it. A ready agent is taken before one that is not,
 * and one that stays before one that is being deleted. Of two alike it is the newer, which takes the listening socket over.
 */
export function servingAgents(agents: readonly AgentView[] = []): ReadonlyMap<string, AgentView> {
  const rankOf = ({ isReady, isTerminating, pod }: AgentView) =>
    `${isReady} ${!isTerminating} ${stringAt(metadataOf(pod), 'creationTimestamp')}`;
  const own = agents.filter(({ isOldNmi }) => !isOldNmi);
  const sorted = own.toSorted((one, other) => (rankOf(one) < rankOf(other) ? -1 : 1));
  return new Map(sorted.map((agent) => [agent.node, agent]));
}

/** Whether a step before the containers of the pod runs this command of the agent's program. */
export function beginsWith(pod: RawObject, command: string): boolean {
  const steps = recordsAt(specOf(pod), 'initContainers');
  return steps.some((each) => textsAt(each, 'args').join(' ').startsWith(command));
}

/** Of this project, and proven to be agents. */
export function trustedOf(agents: readonly AgentView[] = []): readonly AgentView[] {
  return agents.filter(({ isVerified, isOldNmi }) => isVerified && !isOldNmi);
}

/** The options of the agents, which one release gives to all; undefined if no agent shows them. */
export function commonConfig(agents: readonly AgentView[] | undefined): Config | undefined {
  return agents?.find(({ config }) => config !== undefined)?.config;
}

/** The image tag, which is the version for published releases. */
export function versionOf({ image }: Pick<AgentView, 'image'>): string {
  return /^[^@]*:([^:/@]+)(?:@|$)/.exec(image)?.[1] ?? image;
}

function problemOf(pod: RawObject, message: string): string {
  for (const each of recordsAt(statusOf(pod), 'containerStatuses')) {
    const entries = Object.entries(asRecord(each['state']) ?? {});
    const [kind, detail] = entries.find(([name]) => name !== 'running') ?? [];
    if (kind === undefined) continue;
    const reason = stringAt(asRecord(detail), 'reason') || kind;
    const text = stringAt(asRecord(detail), 'message');
    return text === '' ? reason : `${reason}: ${text}`;
  }
  return message === '' ? `phase ${stringAt(statusOf(pod), 'phase')}` : message;
}

function readConfig(container: RawObject | undefined): Config | undefined {
  const flags = textsAt(container, 'args').flatMap((arg) => {
    const [, name, value = 'true'] = /^--?([a-zA-Z][\w-]*)(?:=(.*))?$/s.exec(arg) ?? [];
    return name === undefined ? [] : [[name, value] as const];
  });
  const environment = recordsAt(container, 'env').flatMap((each) => {
    const value = stringAt(each, 'value');
    return value === '' ? [] : [[stringAt(each, 'name'), value] as const];
  });
  const parsed = parseConfig(
    { ...Object.fromEntries(flags), node: 'unnamed' },
    Object.fromEntries(environment),
  );
  return parsed.ok ? parsed.config : undefined;
}

function createDefaultConfig(): Config {
  const parsed = parseConfig({ node: 'unnamed' }, {});
  if (!parsed.ok) throw new TypeError(parsed.problems.join('; '));
  return parsed.config;
}
