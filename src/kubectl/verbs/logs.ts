/** `kubectl nmi logs`: the lines about one pod in the log of the agent on its node. */
import { stringAt } from '../../base/json-value.ts';
import { metadataOf, nameOf, namespaceOf, titleOf } from '../base/object.ts';
import { toLine } from '../base/output.ts';
import { redactText } from '../base/redact.ts';
import { exitCodes } from '../base/io.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import { valueOf } from '../transport/kubectl.ts';
import type { VerbContext } from './context.ts';
import { findPod, targetArguments, type TargetFlags } from './explain.ts';
import { durationOf } from './flag-values.ts';
import { agentOn } from './live.ts';
import type { AddVerb } from './verb.ts';

export const addLogs: AddVerb = (parser, start) =>
  parser.command(
    'logs <what> [name]',
    "print the lines about a pod in the log of its node's agent",
    (verb) =>
      targetArguments(verb)
        .option('since', {
          type: 'string',
          default: '1h',
          requiresArg: true,
          describe: 'How far back. As 90s, 2m or 1h30m.',
        })
        .example('$0 logs pod web-7d4b9 -n shop', 'its requests, and what they were answered'),
    (flags) => start(flags, (context) => logs(context, flags)),
  );

async function logs(
  context: VerbContext,
  flags: TargetFlags & { readonly since: string },
): Promise<ExitCode> {
  const { kubectl, io, agentNamespace } = context;
  const since = `${Math.ceil(durationOf('--since', flags.since) / 1000)}s`;
  const [[pod], read] = await Promise.all([findPod(context, 'logs', flags), readAgents(context)]);
  const agents = valueOf(read, `list pods in namespace ${agentNamespace}`);
  const { namespace, name } = agentOn(pod, agents, agentNamespace);
  const log = await kubectl.expect(`read the log of the agent ${namespace}/${name}`, [
    ...['logs', `--namespace=${namespace}`, name, '--container=nmi', `--since=${since}`],
  ]);
  const uid = stringAt(metadataOf(pod), 'uid');
  // Every line about a pod has its uid; the name alone may be that of an earlier pod.
  const lines = log.split('\n').filter((line) => line.includes(uid));
  for (const line of lines) io.stdout(`${toLine(redactText(line))}\n`);
  if (lines.length > 0) return exitCodes.ok;
  const none = `the log of the agent ${namespace}/${name} has no line about pod ${titleOf(pod)} in the last ${flags.since}`;
  io.stderr(
    `${none}; see what the agent knows: kubectl nmi explain pod ${nameOf(pod)} -n ${namespaceOf(pod)} --live\n`,
  );
  return exitCodes.ok;
}
