/** `kubectl nmi logs`: the log of the agent that serves a pod or a node. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { specOf } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
import type { AgentView } from '../cluster/agents.ts';
import { listAgents } from '../cluster/trusted-agents.ts';
import { valueOf } from '../transport/kubectl.ts';
import { namespaceFor, type VerbContext } from './context.ts';
import type { AddVerb } from './verb.ts';

export const addLogs: AddVerb = (parser, start) =>
  parser.command(
    'logs',
    'print the log of the agent that serves a pod, a node or a request id',
    (verb) =>
      verb
        .option('pod', {
          type: 'string',
          describe: 'Lines about this pod, of the agent on its node.',
        })
        .option('node', { type: 'string', describe: 'All lines of the agent on this node.' })
        .option('request-id', {
          type: 'string',
          describe: 'Lines with this x-ms-request-id; of all agents without --pod or --node.',
        })
        .option('tail', {
          type: 'number',
          requiresArg: true,
          default: 1000,
          describe: 'Lines to read of each agent.',
        })
        .option('follow', {
          alias: 'f',
          type: 'boolean',
          default: false,
          describe: 'Go on with the agent of --node.',
        })
        .example('$0 logs --pod web-7d4b9 -n shop', 'what the agent did for the pod')
        .example('$0 logs --node aks-pool-1 --follow', ''),
    (flags) => start(flags, (context) => logs(context, flags)),
  );

interface LogFlags {
  readonly pod: string | undefined;
  readonly node: string | undefined;
  readonly requestId: string | undefined;
  readonly tail: number;
  readonly follow: boolean;
}

async function logs(context: VerbContext, flags: LogFlags): Promise<ExitCode> {
  const { pod, node, requestId, follow } = flags;
  if (pod === undefined && node === undefined && requestId === undefined) {
    throw usageError('no agent is selected', 'Give --pod, --node or --request-id.');
  }
  if (follow && (node === undefined || pod !== undefined || requestId !== undefined)) {
    throw usageError(
      '--follow goes with --node alone',
      'Use: kubectl nmi logs --node NODE --follow',
    );
  }
  const namespace = pod === undefined ? '' : await namespaceFor(context);
  const place = pod === undefined ? node : await nodeOf(context, namespace, pod);
  const agents = (await listAgents(context)).filter(
    (each) => place === undefined || each.node === place,
  );
  const [first] = agents;
  if (first === undefined) {
    throw failedError(`no agent is on node ${place ?? ''}`, 'See kubectl nmi status');
  }
  if (follow) return followAgent(context, first, flags.tail);
  for (const agent of agents) {
    const what = `read the log of ${agent.namespace}/${agent.name}`;
    const text = await context.kubectl.expect(what, logWords(agent, flags.tail));
    const lines = text.split('\n').filter((line) => line !== '' && isAbout(line, namespace, flags));
    context.io.stdout(lines.map((line) => `${line}\n`).join(''));
  }
  return exitCodes.ok;
}

async function nodeOf({ kubectl }: VerbContext, namespace: string, pod: string): Promise<string> {
  const found = valueOf(await kubectl.get('pods', namespace, pod), `get pod ${namespace}/${pod}`);
  return stringAt(specOf(found), 'nodeName');
}

/** Lines of the agent are JSON; those in the format of the old system are matched as text. */
function isAbout(line: string, namespace: string, { pod, requestId }: LogFlags): boolean {
  if (requestId !== undefined && !line.includes(requestId)) return false;
  if (pod === undefined) return true;
  const record = parseRecord(line);
  if (record === undefined) return line.includes(pod);
  return stringAt(record, 'pod') === pod && stringAt(record, 'namespace') === namespace;
}

async function followAgent(
  { kubectl }: VerbContext,
  agent: AgentView,
  tail: number,
): Promise<ExitCode> {
  const run = await kubectl.run([...logWords(agent, tail), '--follow'], { isShown: true });
  return run.code === 0 ? exitCodes.ok : exitCodes.findings;
}

function logWords({ namespace, name }: AgentView, tail: number): readonly string[] {
  return ['logs', `--namespace=${namespace}`, name, '--container=nmi', `--tail=${tail}`];
}
