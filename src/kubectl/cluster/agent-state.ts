/** The agents with the values of their metrics pages, if the user may read those. */
import type { RawObject } from '../base/object.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { versionOf, type AgentView } from './agents.ts';
import { readMetrics, type MetricSample } from './metrics.ts';
import { describeUnread, valueOrUnread, type Unread } from './unread.ts';

export interface AgentState {
  readonly agent: AgentView;
  /** Undefined when they could not be read. */
  readonly metrics: readonly MetricSample[] | undefined;
  readonly version: string;
  /** Empty when it is unknown. */
  readonly redirect: string;
  /** Readiness conditions that are false. */
  readonly unmet: readonly string[];
}

/** Limit of concurrent reads: each is a process and a proxied connection. */
const atOnce = 8;

export async function readStates(
  kubectl: Kubectl,
  agents: readonly AgentView[],
  unread: Unread[],
): Promise<readonly AgentState[]> {
  const states: AgentState[] = [];
  let isRefused = false;
  // No mutation: a further batch would be empty.
  for (let at = 0; at < agents.length; at += atOnce) {
    const batch = agents.slice(at, at + atOnce).map(async (agent) => {
      if (isRefused || agent.phase !== 'Running' || agent.config?.metricsPort === 0)
        return stateOf(agent, undefined);
      const read = await readMetrics(kubectl, agent);
      if (read.ok) return stateOf(agent, read.value);
      if (!isRefused) {
        const what = `read the metrics of ${agent.namespace}/${agent.name}`;
        unread.push(describeUnread(what, read, 'redirect, conditions and counts of agents'));
      }
      // A permission that is missing for one agent is missing for all.
      isRefused ||= read.failure.kind === 'forbidden';
      return stateOf(agent, undefined);
    });
    states.push(...(await Promise.all(batch)));
  }
  return states;
}

function stateOf(agent: AgentView, metrics: AgentState['metrics']): AgentState {
  const labelOf = (name: string, label: string) =>
    metrics?.find((each) => each.name === name)?.labels.get(label);
  const up = metrics?.find(({ name, value }) => name === 'nmi_redirect_up' && value === 1);
  const known = labelOf('nmi_redirect_up', 'mode');
  const off = metrics !== undefined && agent.config?.redirect === 'none' ? 'none' : '';
  const unmet = metrics?.filter(({ name, value }) => name === 'nmi_ready' && value === 0) ?? [];
  return {
    agent,
    metrics,
    version: labelOf('nmi_build_info', 'version') ?? versionOf(agent),
    redirect: up?.labels.get('mode') ?? (known === undefined ? off : `${known} (not in place)`),
    unmet: unmet.map(({ labels }) => labels.get('condition') ?? ''),
  };
}

/** The sum of the samples of a metric, by one of its labels. */
export function sumBy(
  metrics: readonly MetricSample[],
  name: string,
  label: string,
): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  for (const sample of metrics) {
    if (sample.name !== name) continue;
    const key = sample.labels.get(label) ?? '';
    sums.set(key, (sums.get(key) ?? 0) + sample.value);
  }
  return sums;
}

/** Nodes of the cluster; undefined if the user may not list them. */
export async function listNodes(
  kubectl: Kubectl,
  unread: Unread[],
): Promise<readonly RawObject[] | undefined> {
  const read = await kubectl.list('nodes', undefined);
  return valueOrUnread(read, 'list nodes', 'nodes without an agent', unread);
}
