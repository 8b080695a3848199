/** What the agents report of themselves on their metrics pages, if the user may read those. */
import type { RawObject } from '../base/object.ts';
import type { Kubectl, Read } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import { versionOf, type AgentView } from './agents.ts';
import { describeUnread, valueOrUnread, type Unread } from './unread.ts';

export interface AgentState {
  readonly agent: AgentView;
  readonly version: string;
  /** Empty when it is unknown. */
  readonly redirect: string;
  /** Readiness conditions that are false. */
  readonly unmet: readonly string[];
  /** Undefined when it is unknown. */
  readonly tokens: number | undefined;
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
      const read = await readMetricsPage(kubectl, agent);
      if (read.ok) return stateOf(agent, parseMetrics(read.value));
      if (!isRefused) {
        const what = `read the metrics of ${agent.namespace}/${agent.name}`;
        unread.push(describeUnread(what, read, 'redirect, conditions and tokens of agents'));
      }
      // A permission that is missing for one agent is missing for all.
      isRefused ||= read.failure.kind === 'forbidden';
      return stateOf(agent, undefined);
    });
    states.push(...(await Promise.all(batch)));
  }
  return states;
}

/** Through the API server's proxy. */
export async function readMetricsPage(
  kubectl: Kubectl,
  { namespace, name, config }: AgentView,
): Promise<Read<string>> {
  const port = config?.metricsPort ?? 9090;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy/metrics`;
  const run = await kubectl.run(['get', `--raw=${path}`]);
  if (run.code !== 0) return { ok: false, failure: classifyFailure(run) };
  return { ok: true, value: run.stdout };
}

interface MetricSample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

/** Lines that are not samples are left out. No value of a label that is read here has a quote. */
function parseMetrics(page: string): readonly MetricSample[] {
  return page.split('\n').flatMap((line) => {
    const [, name, labels = '', value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)];
    const entries = pairs.map(([, key = '', label = '']) => [key, label] as const);
    return [{ name, labels: new Map(entries), value: Number(value) }];
  });
}

function stateOf(agent: AgentView, metrics: readonly MetricSample[] | undefined): AgentState {
  const find = (name: string) => metrics?.find((each) => each.name === name);
  const up = metrics?.find(({ name, value }) => name === 'nmi_redirect_up' && value === 1);
  const known = find('nmi_redirect_up')?.labels.get('mode');
  const off = metrics !== undefined && agent.config?.redirect === 'none' ? 'none' : '';
  const unmet = metrics?.filter(({ name, value }) => name === 'nmi_ready' && value === 0) ?? [];
  return {
    agent,
    version: find('nmi_build_info')?.labels.get('version') ?? versionOf(agent),
    redirect: up?.labels.get('mode') ?? (known === undefined ? off : `${known} (not in place)`),
    unmet: unmet.map(({ labels }) => labels.get('condition') ?? ''),
    tokens: find('nmi_token_cache_entries')?.value,
  };
}

/** Nodes of the cluster; undefined if the user may not list them. */
export async function listNodes(
  kubectl: Kubectl,
  unread: Unread[],
): Promise<readonly RawObject[] | undefined> {
  const read = await kubectl.list('nodes', undefined);
  return valueOrUnread(read, 'list nodes', 'nodes without an agent', unread);
}
