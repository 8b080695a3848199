/** `kubectl nmi status`: one line per node. */
import { renderAge, renderTable } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { nameOf } from '../base/object.ts';
import { listNodes, readStates, type AgentState } from '../cluster/agent-state.ts';
import { renderUnread, type Unread } from '../cluster/unread.ts';
import { listAgents } from '../cluster/trusted-agents.ts';
import { examineAgents, nodesOfAgents } from '../findings/agents.ts';
import { renderFindings, sortFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { exitOf, print, type VerbContext } from './context.ts';
import { durationFlag, readDuration } from '../base/duration-flag.ts';
import { section } from './explain.ts';
import { switchFlag, type AddVerb } from './verb.ts';

export const addStatus: AddVerb = (parser, start) =>
  parser.command(
    'status',
    'show one line per node: agent, version, redirect, ready or why not',
    (verb) =>
      verb
        .option('wait', switchFlag('Wait until every node has a ready agent of one version.'))
        .option('timeout', durationFlag('5m', 'How long --wait waits.'))
        .example('$0 status', 'now')
        .example('$0 status --wait --timeout 10m', 'after an installation or upgrade'),
    (flags) =>
      start(flags, (context) =>
        status(context, { ...flags, timeoutMs: readDuration('timeout', flags.timeout) }),
      ),
  );

interface StatusFlags {
  readonly wait: boolean;
  readonly timeoutMs: number;
}

interface ClusterStatus {
  readonly nodes: readonly NodeStatus[];
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
}

interface NodeStatus {
  readonly node: string;
  readonly agent: string;
  readonly version: string;
  readonly redirect: string;
  readonly state: string;
  readonly since: string;
  readonly restarts: number;
  readonly tokens: number | undefined;
  readonly problem: string;
}

const pauseMs = 3_000;

async function status(context: VerbContext, { wait, timeoutMs }: StatusFlags): Promise<ExitCode> {
  const { io } = context;
  const endMs = io.wallMs() + (wait ? timeoutMs : 0);
  let found = await readStatus(context);
  while (!isSettled(found) && io.wallMs() < endMs) {
    await io.sleep(pauseMs);
    found = await readStatus(context);
  }
  print(context, { kind: 'Status', ...found }, () => [
    ...renderTable(
      ['NODE', 'AGENT', 'VERSION', 'REDIRECT', 'STATE', 'SINCE', 'RESTARTS', 'TOKENS', 'PROBLEM'],
      found.nodes.map((each) => [
        ...[each.node, each.agent, each.version, each.redirect, each.state, each.since],
        ...[String(each.restarts), String(each.tokens ?? ''), each.problem],
      ]),
    ),
    ...section('Findings:', renderFindings(found.findings)),
    ...renderUnread(found.unread),
  ]);
  if (wait && !isSettled(found)) return exitCodes.findings;
  return exitOf(context, isSettled(found));
}

function isSettled({ findings, nodes }: ClusterStatus): boolean {
  return nodes.length > 0 && findings.every(({ severity }) => severity === 'info');
}

async function readStatus(context: VerbContext): Promise<ClusterStatus> {
  const { kubectl, io } = context;
  const unread: Unread[] = [];
  const [agents, nodes] = await Promise.all([listAgents(context), listNodes(kubectl, unread)]);
  const states = await readStates(kubectl, agents, unread);
  const nowMs = io.wallMs();
  const names = new Set([
    ...nodesOfAgents(nodes ?? []).map(nameOf),
    ...agents.map(({ node }) => node),
  ]);
  return {
    nodes: [...names].toSorted().flatMap((node) => linesOf(node, states, nowMs)),
    findings: sortFindings(examineAgents(nodes, agents)),
    unread,
  };
}

function linesOf(
  node: string,
  states: readonly AgentState[],
  nowMs: number,
): readonly NodeStatus[] {
  const here = states.filter(({ agent }) => agent.node === node);
  if (here.length === 0) {
    const nothing = { agent: '', version: '', redirect: '', since: '', problem: '' };
    return [{ node, ...nothing, state: 'no agent', restarts: 0, tokens: undefined }];
  }
  return here.map(({ agent, version, redirect, unmet, tokens }) => ({
    node,
    agent: `${agent.namespace}/${agent.name}`,
    version,
    redirect,
    state: agent.isReady ? 'ready' : 'not ready',
    since: agent.sinceWallMs === 0 ? '' : renderAge(nowMs - agent.sinceWallMs),
    restarts: agent.restarts,
    tokens,
    problem: [agent.problem, ...unmet].filter((each) => each !== '').join(', '),
  }));
}
