/** `kubectl nmi version`: of the plugin, the agents and the server. */
import { buildInfo } from '../../nmi/base/build-info.ts';
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { exitCodes } from '../base/io.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { versionOf } from '../cluster/agents.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import { print, type VerbContext } from './context.ts';
import { switchFlag, type AddVerb } from './verb.ts';

export const addVersion: AddVerb = (parser, start) =>
  parser.command(
    'version',
    'version of the plugin, of kubectl, of the API server and of the agents',
    (verb) =>
      verb
        .option('client', switchFlag("Only the plugin's version, without reading the cluster."))
        .example('$0 version --client', 'without a cluster'),
    (flags) => start(flags, (context) => version(context, flags.client)),
  );

async function version(context: VerbContext, isClientOnly: boolean): Promise<ExitCode> {
  const plugin = { version: buildInfo.version, commit: buildInfo.commit, date: buildInfo.date };
  const cluster = isClientOnly ? {} : await readVersions(context);
  const value = { kind: 'Version', plugin, ...cluster };
  print(context, value, () => [
    `plugin: ${plugin.version} (commit ${plugin.commit}, ${plugin.date})`,
    ...Object.entries(cluster).map(([what, text]) => `${what}: ${text}`),
  ]);
  return exitCodes.ok;
}

async function readVersions(context: VerbContext): Promise<Readonly<Record<string, string>>> {
  const [run, agents] = await Promise.all([
    context.kubectl.run(['version', '--output=json']),
    readAgents(context),
  ]);
  const parsed = parseRecord(run.stdout);
  const versionAt = (key: string) => stringAt(asRecord(parsed?.[key]), 'gitVersion');
  const own = agents.ok ? agents.value : [];
  const versions = [...Map.groupBy(own, versionOf)].map(
    ([each, { length }]) => `${each} on ${length} nodes`,
  );
  return {
    kubectl: versionAt('clientVersion') || 'unknown',
    server: versionAt('serverVersion') || 'not reached',
    agents: agents.ok ? versions.join(', ') || 'none' : 'not visible to you',
  };
}
