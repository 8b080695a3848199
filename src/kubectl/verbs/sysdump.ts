/** `kubectl nmi sysdump`: one redacted file with the data for a bug report. */
import { buildInfo } from '../../nmi/base/build-info.ts';
import { parseRecord } from '../../base/json-value.ts';
import { redactObject, redactText } from '../base/redact.ts';
import { renderYaml } from '../base/output.ts';
import type { RawObject } from '../base/object.ts';
import { exitCodes } from '../base/io.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { unverified, type AgentView } from '../cluster/agents.ts';
import { identityResources } from '../cluster/resources.ts';
import { describeUnread, valueOrUnread, type Unread } from '../cluster/unread.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure } from '../transport/kubectl-failure.ts';
import type { VerbContext } from './context.ts';
import type { AddVerb } from './verb.ts';

export const addSysdump: AddVerb = (parser, start) =>
  parser.command(
    'sysdump',
    'print objects, logs and metrics, redacted, for a bug report',
    (verb) => verb.example('$0 sysdump > nmi.yaml', 'read it before you give it away'),
    (flags) => start(flags, sysdump),
  );

const resources = [
  'nodes',
  'customresourcedefinitions.apiextensions.k8s.io',
  'daemonsets.apps',
  ...Object.values(identityResources),
];
/** Most objects of each kind, enough to diagnose a larger cluster. */
const maxObjects = 500;
const maxAgents = 20;
const maxLogLines = 500;

async function sysdump(context: VerbContext): Promise<ExitCode> {
  const { kubectl, io } = context;
  const unread: Unread[] = [];
  const read = await readAgents(context);
  const agents = valueOrUnread(read, 'list pods', 'the agents in the dump', unread) ?? [];
  const documents: object[] = [];
  for (const resource of resources) {
    const list = await kubectl.list(resource, undefined);
    const found = valueOrUnread(list, `list ${resource}`, `${resource} in the dump`, unread) ?? [];
    const objects = found.filter((each) => isOurs(resource, each));
    documents.push({
      resource,
      omitted: Math.max(0, objects.length - maxObjects),
      objects: objects.slice(0, maxObjects).map(redactObject),
    });
  }
  documents.push({ resource: 'pods', objects: agents.map(({ pod }) => redactObject(pod)) });
  for (const agent of agents.slice(0, maxAgents)) {
    documents.push(await agentDocument(kubectl, agent, unread));
  }
  const head = { plugin: buildInfo, at: new Date(io.wallMs()).toISOString(), unread };
  io.stdout(renderYaml([head, ...documents]));
  return exitCodes.ok;
}

function isOurs(resource: string, object: RawObject): boolean {
  if (resource === 'nodes' || resource.endsWith('aadpodidentity.k8s.io')) return true;
  return /aadpodidentity|"nmi"|-nmi"/.test(JSON.stringify(object['metadata'] ?? {}));
}

async function agentDocument(
  kubectl: Kubectl,
  agent: AgentView,
  unread: Unread[],
): Promise<object> {
  const { namespace, name, config } = agent;
  const where = [`--namespace=${namespace}`, name, '--container=nmi', `--tail=${maxLogLines}`];
  const [log, previous, metrics, explained] = await Promise.all([
    kubectl.run(['logs', ...where]),
    kubectl.run(['logs', ...where, '--previous']),
    // Through the API server's proxy.
    kubectl.run([
      'get',
      `--raw=/api/v1/namespaces/${namespace}/pods/${name}:${config?.metricsPort ?? 9090}/proxy/metrics`,
    ]),
    explainedBy(kubectl, agent, unread),
  ]);
  if (metrics.code !== 0) {
    const what = `read the metrics of ${namespace}/${name}`;
    unread.push(describeUnread(what, classifyFailure(metrics), `metrics of ${name}`));
  }
  return {
    agent: `${namespace}/${name}`,
    log: redactText(log.code === 0 ? log.stdout : log.stderr),
    previousLog: redactText(previous.stdout),
    explained: parseRecord(redactText(explained)) ?? {},
    metrics: redactText(metrics.stdout)
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#')),
  };
}

/** The JSON of its `nmi explain`, by exec into its pod; empty if it cannot be read. */
async function explainedBy(
  kubectl: Kubectl,
  { namespace, name, isVerified }: AgentView,
  unread: Unread[],
): Promise<string> {
  const [what, loses] = [`ask the agent ${namespace}/${name}`, `flags, state and pods of ${name}`];
  if (!isVerified) {
    unread.push({ what, why: unverified, loses });
    return '';
  }
  const run = await kubectl.run([
    ...['exec', `--namespace=${namespace}`, name, '--container=nmi', '--'],
    ...['nmi', 'explain', '--output=json'],
  ]);
  if (run.code === 0) return run.stdout;
  unread.push(describeUnread(what, classifyFailure(run), loses));
  return '';
}
