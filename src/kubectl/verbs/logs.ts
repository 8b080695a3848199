/** `kubectl nmi logs`: the log of the agent that serves a pod or a node. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { specOf } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
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
        .example('$0 logs --pod web-7d4b9 -n shop', 'what the agent did for the pod')
        .example('$0 logs --request-id 1a2b3c', 'what became of a request'),
    (flags) => start(flags, (context) => logs(context, flags)),
  );

interface LogFlags {
  readonly pod: string | undefined;
  readonly node: string | undefined;
  readonly requestId: string | undefined;
  readonly tail: number;
}

async function logs(context: VerbContext, flags: LogFlags): Promise<ExitCode> {
  const { pod, node, requestId } = flags;
  if (pod === undefined && node === undefined && requestId === undefined) {
    throw usageError('no agent is selected', 'Give --pod, --node or --request-id.');
  }
  const namespace = pod === undefined ? '' : await namespaceFor(context);
  const place = pod === undefined ? node : await nodeOf(context, namespace, pod);
  const agents = (await listAgents(context)).filter(
    (each) => place === undefined || each.node === place,
  );
  if (agents.length === 0) {
    throw failedError(`no agent is on node ${place ?? ''}`, 'See kubectl nmi status');
  }
  for (const agent of agents) {
    const what = `read the log of ${agent.namespace}/${agent.name}`;
    const text = await context.kubectl.expect(what, [
      ...['logs', `--namespace=${agent.namespace}`, agent.name],
      ...['--container=nmi', `--tail=${flags.tail}`],
    ]);
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
