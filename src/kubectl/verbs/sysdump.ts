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
import {
  classifyFailure,
  toPluginError,
  type KubectlFailure,
} from '../transport/kubectl-failure.ts';
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
/** Failures after which other reads may succeed. */
const partial: ReadonlySet<KubectlFailure['kind']> = new Set(['forbidden', 'other']);

async function sysdump(context: VerbContext): Promise<ExitCode> {
  const { kubectl, io } = context;
  const unread: Unread[] = [];
  const read = await readAgents(context);
  // Without any answer there is nothing to dump.
  if (!read.ok && !partial.has(read.failure.kind)) throw toPluginError(read.failure, 'list pods');
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
  // kubectl may name the proxy by which it reaches the server.
  const clean = unread.map((each) => ({ ...each, why: redactText(each.why) }));
  const head = { plugin: buildInfo, at: new Date(io.wallMs()).toISOString(), unread: clean };
  io.stdout(renderYaml([head, ...documents]));
  return exitCodes.ok;
}

function isOurs(resource: string, object: RawObject): boolean {
  if (resource === 'nodes' || resource.endsWith('aadpodidentity.k8s.io')) return true;
  return /aadpodidentity|"nmi"|-nmi"/.test(JSON.stringify(object['metadata'] ?? {}));
}

async function agentDocument(
  kubectl: Kubectl,
  { namespace, name, config, isVerified }: AgentView,
  unread: Unread[],
): Promise<object> {
  const agent = `${namespace}/${name}`;
  const where = [`--namespace=${namespace}`, name, '--container=nmi'];
  const tail = `--tail=${maxLogLines}`;
  /** Empty if it fails, which is noted. */
  const outputOf = async (what: string, loses: string, words: readonly string[]) => {
    const run = await kubectl.run(words);
    if (run.code === 0) return run.stdout;
    unread.push(describeUnread(what, classifyFailure(run), loses));
    return '';
  };
  // Through the API server's proxy.
  const page = `/api/v1/namespaces/${namespace}/pods/${name}:${config?.metricsPort ?? 9090}/proxy/metrics`;
  const [ask, state] = [`ask the agent ${agent}`, `flags, state and pods of ${name}`];
  if (!isVerified) unread.push({ what: ask, why: unverified, loses: state });
  const [log, previous, metrics, explained] = await Promise.all([
    kubectl.run(['logs', ...where, tail]),
    kubectl.run(['logs', ...where, tail, '--previous']),
    outputOf(`read the metrics of ${agent}`, `metrics of ${name}`, ['get', `--raw=${page}`]),
    isVerified
      ? outputOf(ask, state, ['exec', ...where, '--', 'nmi', 'explain', '--output=json'])
      : '',
  ]);
  return {
    agent,
    log: redactText(log.code === 0 ? log.stdout : log.stderr),
    previousLog: redactText(previous.stdout),
    explained: parseRecord(redactText(explained)) ?? {},
    metrics: redactText(metrics)
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#')),
  };
}
