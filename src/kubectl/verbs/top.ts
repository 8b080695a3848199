/** `kubectl nmi top`: requests by reason, namespace and node, since the agents started or in an interval. */
import { renderTable } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { PluginError, type ExitCode } from '../base/plugin-error.ts';
import { readStates } from '../cluster/agent-state.ts';
import type { AgentView } from '../cluster/agents.ts';
import type { MetricSample } from '../cluster/metrics.ts';
import { renderUnread, type Unread } from '../cluster/unread.ts';
import { listAgents } from '../cluster/trusted-agents.ts';
import { print, type VerbContext } from './context.ts';
import { durationFlag, readDuration } from '../base/duration-flag.ts';
import type { AddVerb } from './verb.ts';

export const addTop: AddVerb = (parser, start) =>
  parser.command(
    'top',
    'requests by reason, namespace and node; needs get on pods/proxy of the agents',
    (verb) =>
      verb
        .option('interval', durationFlag('0s', 'How long to count; 0 is since the agents started.'))
        .example('$0 top --interval 30s', 'what happens now'),
    (flags) => start(flags, (context) => top(context, readDuration('interval', flags.interval))),
  );

interface Row {
  readonly node: string;
  /** Of the pod; empty if the pod is unknown or the request was not for a token. */
  readonly namespace: string;
  readonly reason: string;
  readonly requests: number;
}

async function top(context: VerbContext, intervalMs: number): Promise<ExitCode> {
  const { io } = context;
  const unread: Unread[] = [];
  const agents = (await listAgents(context)).filter(({ isOldNmi }) => !isOldNmi);
  const before = intervalMs > 0 ? await count(context, agents, unread) : new Map<string, Row>();
  if (intervalMs > 0) await io.sleep(intervalMs);
  const after = await count(context, agents, unread);
  const [refused] = unread;
  if (after.size === 0 && refused !== undefined) {
    throw new PluginError(
      exitCodes.noRight,
      `cannot ${refused.what}: ${refused.why}`,
      'Ask somebody with the right for that rule.',
    );
  }
  const rows = [...after]
    .map(([key, row]) => ({ ...row, requests: row.requests - (before.get(key)?.requests ?? 0) }))
    .filter(({ requests }) => requests > 0)
    .toSorted((one, other) => other.requests - one.requests);
  print(context, { kind: 'Requests', intervalS: intervalMs / 1000, rows, unread }, () => [
    ...renderTable(
      ['REQUESTS', 'REASON', 'NAMESPACE', 'NODE'],
      rows.map(({ requests, reason, namespace, node }) => [
        String(requests),
        reason,
        namespace,
        node,
      ]),
    ),
    ...renderUnread(unread.slice(0, 1)),
  ]);
  return exitCodes.ok;
}

async function count(
  { kubectl }: VerbContext,
  agents: readonly AgentView[],
  unread: Unread[],
): Promise<Map<string, Row>> {
  const states = await readStates(kubectl, agents, unread);
  const rows = new Map<string, Row>();
  for (const { agent, metrics = [] } of states) {
    for (const { labels, value } of requestsOf(metrics)) {
      const [reason, namespace] = [labels.get('reason') ?? '', labels.get('namespace') ?? ''];
      const key = `${agent.node} ${namespace} ${reason}`;
      const requests = (rows.get(key)?.requests ?? 0) + value;
      rows.set(key, { node: agent.node, namespace, reason, requests });
    }
  }
  return rows;
}

const tokenRoutes: ReadonlySet<string | undefined> = new Set(['token', 'host-token']);

/** Each request once: token requests by namespace, if the agent counts them by namespace. */
function requestsOf(metrics: readonly MetricSample[]): readonly MetricSample[] {
  const byNamespace = metrics.filter(({ name }) => name === 'nmi_token_requests_total');
  const all = metrics.filter(({ name }) => name === 'nmi_requests_total');
  if (byNamespace.length === 0) return all;
  return [...byNamespace, ...all.filter(({ labels }) => !tokenRoutes.has(labels.get('route')))];
}
