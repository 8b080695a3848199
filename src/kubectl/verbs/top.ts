/** `kubectl nmi top`: requests of the cluster by reason and by node, since the agents started or in an interval. */
import { renderTable } from '../base/output.ts';
import { exitCodes } from '../base/outside.ts';
import { PluginError, type ExitCode } from '../base/plugin-error.ts';
import { listAgents, readStates, sumBy } from '../cluster/agent-state.ts';
import type { AgentView } from '../cluster/agents.ts';
import type { Unread } from '../cluster/snapshot.ts';
import { print, type VerbContext } from './context.ts';
import { renderUnread } from './explain.ts';
import type { AddVerb } from './verb.ts';

export const addTop: AddVerb = (parser, start) =>
  parser.command(
    'top',
    'requests by reason and node; needs get on pods/proxy of the agents',
    (verb) =>
      verb
        .option('interval', {
          type: 'number',
          default: 0,
          describe: 'Seconds to count for; 0 is since the agents started.',
        })
        .example('$0 top --interval 30', 'what happens now'),
    (flags) => start(flags, (context) => top(context, flags.interval)),
  );

interface Row {
  readonly node: string;
  readonly reason: string;
  readonly requests: number;
}

async function top(context: VerbContext, intervalS: number): Promise<ExitCode> {
  const { kubectl, outside } = context;
  const unread: Unread[] = [];
  const agents = (await listAgents(kubectl)).filter(({ isOldNmi }) => !isOldNmi);
  const before = intervalS > 0 ? await count(context, agents, unread) : new Map<string, Row>();
  if (intervalS > 0) await outside.sleep(intervalS * 1000);
  const after = await count(context, agents, unread);
  const [refused] = unread;
  if (after.size === 0 && refused !== undefined) {
    throw new PluginError(exitCodes.noRight, `cannot ${refused.what}`, refused.why);
  }
  const rows = [...after]
    .map(([key, row]) => ({ ...row, requests: row.requests - (before.get(key)?.requests ?? 0) }))
    .filter(({ requests }) => requests > 0)
    .toSorted((one, other) => other.requests - one.requests);
  print(context, { kind: 'Requests', intervalS, rows, unread }, () => [
    ...renderTable(
      ['REQUESTS', 'REASON', 'NODE'],
      rows.map(({ requests, reason, node }) => [String(requests), reason, node]),
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
  return new Map(
    states.flatMap(({ agent: { node }, metrics = [] }) =>
      [...sumBy(metrics, 'nmi_requests_total', 'reason')].map(
        ([reason, requests]) => [`${node} ${reason}`, { node, reason, requests }] as const,
      ),
    ),
  );
}
