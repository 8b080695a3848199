/** `kubectl nmi explain`: what a pod, an identity, a binding or an address gets, and why. */
import { matchesPod } from '../../cache/index/binding-label.ts';
import { parseBinding, parsePod } from '../../nmi/kube/watch/parse.ts';
import { canonicalIp } from '../../cache/index/ip.ts';
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { nearest } from '../../base/nearest.ts';
import type { PodExplanation } from '../../nmi/explain/explanation.ts';
import { renderFacts, row } from '../../nmi/explain/explanation-text.ts';
import type { IdentitySelector } from '../../nmi/grants/choose-identity.ts';
import { nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { failedError, usageError, type ExitCode, type PluginError } from '../base/plugin-error.ts';
import { renderTable } from '../base/output.ts';
import { defaultConfig, unverified, type AgentView } from '../cluster/agents.ts';
import { createClusterState } from '../cluster/cluster-state.ts';
import { readSnapshot, type Snapshot, type Unread } from '../cluster/snapshot.ts';
import {
  createFinding,
  renderFindings,
  sortFindings,
  type Finding,
} from '../../nmi/diagnosis/finding.ts';
import { findingOfIgnored } from '../../nmi/diagnosis/objects.ts';
import { examineObjects } from '../findings/objects.ts';
import { examinePod, namedClientId, refusalOf, type PodContext } from '../findings/pods.ts';
import {
  exitOf,
  namespaceFor,
  print,
  refuseUnknownNamespace,
  type VerbContext,
} from './context.ts';

export interface PodFlags {
  readonly clientId: string | undefined;
  readonly resource: string | undefined;
  /** Also query the agent of the node. */
  readonly live: boolean;
}

/** The JSON of `explain`. */
export interface PodAnswer {
  readonly kind: 'PodExplanation';
  readonly pod: string;
  readonly node: string;
  readonly verdict: 'granted' | 'refused' | 'unreachable';
  readonly summary: string;
  readonly explanation: PodExplanation;
  readonly findings: readonly Finding[];
  readonly unread: readonly Unread[];
  readonly assumed: readonly string[];
  /** What the agent itself reports, with --live. */
  readonly live: unknown;
}

export async function explainPod(
  context: VerbContext,
  name: string,
  flags: PodFlags,
): Promise<ExitCode> {
  const namespace = await namespaceFor(context);
  const snapshot = await readSnapshot(context, namespace);
  const pod = snapshot.pods.find((each) => nameOf(each) === name);
  if (pod === undefined) {
    await refuseUnknownNamespace(context, namespace);
    throw noSuchPod(name, namespace, snapshot);
  }
  return report(context, pod, snapshot, flags);
}

export async function explainIp(
  context: VerbContext,
  text: string,
  flags: PodFlags,
): Promise<ExitCode> {
  const ip = canonicalIp(text);
  if (ip === undefined) throw usageError(`${text} is no IP address`, 'Write it as 10.244.1.7.');
  const fields = `status.podIP=${ip}`;
  const everywhere = await context.kubectl.list('pods', undefined, { fields });
  const scope = await namespaceFor(context);
  const found = everywhere.ok ? everywhere : await context.kubectl.list('pods', scope, { fields });
  const owners = (found.ok ? found.value : []).filter(
    (each) => specOf(each)['hostNetwork'] !== true,
  );
  const [pod] = owners;
  if (pod === undefined) {
    throw failedError(
      `no pod has the address ${ip}${everywhere.ok ? '' : ` in namespace ${scope}, the only one that you may list`}`,
      'An address of a node belongs to pods on the host network; name such a pod instead.',
    );
  }
  const snapshot = await readSnapshot(context, namespaceOf(pod));
  return report(context, pod, snapshot, flags);
}

/** @param kind `identity` or `binding`. */
export async function explainObject(
  context: VerbContext,
  kind: 'identity' | 'binding',
  name: string,
): Promise<ExitCode> {
  const namespace = await namespaceFor(context);
  const snapshot = await readSnapshot(context, namespace);
  const objects = kind === 'identity' ? snapshot.identities : snapshot.bindings;
  const object = objects.find((each) => nameOf(each) === name && namespaceOf(each) === namespace);
  const title = kind === 'identity' ? 'AzureIdentity' : 'AzureIdentityBinding';
  if (object === undefined) {
    await refuseUnknownNamespace(context, namespace);
    throw noSuchObject(title, name, namespace, objects);
  }
  const { pods, view } = createContext(context, snapshot);
  const bindings = snapshot.bindings.filter(
    (each) =>
      namespaceOf(each) === namespace &&
      (kind === 'binding' ? each === object : stringAt(specOf(each), 'azureIdentity') === name),
  );
  const parsed = bindings.flatMap((each) => {
    const binding = parseBinding(each);
    return binding.ok ? [binding.value] : [];
  });
  const rows = pods
    .filter((each) => {
      const pod = parsePod(each);
      return pod.ok && parsed.some((binding) => matchesPod(binding, pod.value));
    })
    .map((each) => {
      const explanation = view.explainPod({
        namespace,
        name: nameOf(each),
        node: stringAt(specOf(each), 'nodeName'),
        selector: { kind: 'none' },
        resource: undefined,
      });
      const isBound =
        kind === 'binding' || explanation?.identities.some((identity) => identity.name === name);
      return {
        pod: nameOf(each),
        isBound: isBound === true,
        gets: explanation === undefined ? '' : summaryOf(explanation),
      };
    })
    .filter(({ isBound }) => isBound);
  const findings = sortFindings(
    examineObjects({ snapshot, view, config: defaultConfig }).filter(
      (each) => each.object === `${title} ${titleOf(object)}`,
    ),
  );
  const value = {
    kind: `${title}Explanation`,
    name: titleOf(object),
    spec: specOf(object),
    bindings: bindings.map((each) => ({ name: nameOf(each), ...specOf(each) })),
    pods: rows,
    findings,
    unread: snapshot.unread,
  };
  print(context, value, () => [
    `${title} ${titleOf(object)}`,
    ...Object.entries(specOf(object)).map(([key, field]) => `  ${key}: ${JSON.stringify(field)}`),
    '',
    ...(kind === 'identity'
      ? [
          bindings.length === 0 ? 'No binding names it.' : 'Bindings:',
          ...bindings.map(
            (each) => `  ${nameOf(each)}, selector ${stringAt(specOf(each), 'selector')}`,
          ),
        ]
      : []),
    ...(rows.length === 0
      ? ['No pod has it.']
      : renderTable(
          ['POD', 'GETS'],
          rows.map(({ pod, gets }) => [pod, gets]),
        )),
    ...section('Findings:', renderFindings(findings)),
    ...renderUnread(snapshot.unread),
  ]);
  return exitOf(
    context,
    findings.every(({ severity }) => severity !== 'error'),
  );
}

function createContext(context: VerbContext, snapshot: Snapshot, node?: string) {
  const { agents } = snapshot;
  const agent = agents?.find((each) => each.node === node) ?? agents?.[0];
  const config = agent?.config ?? defaultConfig;
  const view = createClusterState(snapshot, config, context.io.wallMs());
  return { view, config, agent, pods: snapshot.pods, snapshot };
}

async function report(
  context: VerbContext,
  pod: RawObject,
  snapshot: Snapshot,
  flags: PodFlags,
): Promise<ExitCode> {
  const node = stringAt(specOf(pod), 'nodeName');
  const found = createContext(context, snapshot, node);
  const { resource } = flags;
  // The identity that an SDK in the pod would request.
  const clientId = flags.clientId ?? namedClientId(pod);
  const selector: IdentitySelector =
    clientId === undefined ? { kind: 'none' } : { kind: 'client_id', value: clientId };
  const examined = examinePod(pod, found, { selector, resource });
  if (examined === undefined) {
    throw failedError(
      `pod ${titleOf(pod)} cannot be read: an agent would ignore it`,
      'Look at the object: kubectl get pod -o yaml',
    );
  }
  const agent = snapshot.agents?.find((each) => each.node === node);
  const findings = sortFindings([
    ...withoutDouble(examined.findings),
    ...findingsOfAgent(node, agent, snapshot),
    ...unusableOf(found),
  ]);
  const { explanation } = examined;
  const answer: PodAnswer = {
    kind: 'PodExplanation',
    pod: titleOf(pod),
    node,
    verdict: verdictOf(explanation),
    summary: summaryOf(explanation),
    explanation,
    findings,
    unread: snapshot.unread,
    assumed: assumptionsOf(agent, snapshot),
    live: flags.live ? await askAgent(context, pod, agent, flags) : undefined,
  };
  print(context, answer, () => renderPodAnswer(answer));
  const isFine =
    answer.verdict === 'granted' && findings.every(({ severity }) => severity !== 'error');
  return exitOf(context, isFine);
}

/** A refusal for AZURE_CLIENT_ID is reported once, by the finding that shows where to change it. */
function withoutDouble(findings: readonly Finding[]): readonly Finding[] {
  const isExplained = findings.some(({ code }) => code === 'client_id_not_bound');
  return findings.filter(({ code }) => !isExplained || code !== 'selector_not_bound');
}

function assumptionsOf(agent: AgentView | undefined, { agents }: Snapshot): readonly string[] {
  if (agent?.config !== undefined) return [];
  const why =
    agents === undefined
      ? 'its pods are not visible to you'
      : agent === undefined
        ? 'none is on the node'
        : 'those that it was started with are not known to this version';
  return [`The agent has default options: ${why}.`];
}

/** Objects that the agent ignores but that may be intended for this pod. */
function unusableOf({ view }: PodContext): readonly Finding[] {
  return view.unusable.map(({ kind, title, reason }) => ({
    ...findingOfIgnored(`${kind} ${title}`, reason),
    severity: 'warning',
  }));
}

function findingsOfAgent(
  node: string,
  agent: AgentView | undefined,
  { agents }: Snapshot,
): readonly Finding[] {
  if (agents === undefined || node === '') return [];
  if (agent === undefined) {
    return [
      createFinding('agent_missing', {
        object: `Node ${node}`,
        text: 'No pod of the agent is on the node of this pod: requests are refused, or reach the identity of the node where no agent ever ran.',
      }),
    ];
  }
  if (agent.isReady) return [];
  return [
    createFinding('agent_not_ready', {
      object: `Pod ${agent.namespace}/${agent.name}`,
      text: `The agent of node ${node} is not ready: ${agent.problem}`,
      fix: `kubectl nmi logs --node ${node}`,
    }),
  ];
}

function verdictOf({ requests }: PodExplanation): PodAnswer['verdict'] {
  return requests.at(-1)?.outcome.kind ?? 'unreachable';
}

/** One line: what the request gets. */
function summaryOf(explanation: PodExplanation): string {
  const outcome = explanation.requests.at(-1)?.outcome;
  const refusal = refusalOf(explanation);
  if (refusal !== undefined) return `${refusal.status} ${refusal.reason}`;
  if (outcome?.kind !== 'granted') {
    return outcome?.kind === 'unreachable' && outcome.why === 'host-network'
      ? 'the answer of the node (host network)'
      : 'nothing yet: the pod has no address';
  }
  const { identity, by } = outcome;
  const found = explanation.identities.find(({ name }) => name === identity);
  if (found === undefined || found.kind === 'node')
    return `a token of the node's own identities (${by})`;
  const title =
    found.kind === 'service-account' ? 'the application of service account' : 'AzureIdentity';
  const how =
    by === 'only' ? 'the only one bound' : by === 'default' ? 'the oldest bound' : `by ${by}`;
  return `a token of ${title} ${identity}, client id ${found.clientId || 'none'} (${how})`;
}

function renderPodAnswer(answer: PodAnswer): readonly string[] {
  const { explanation, findings, unread, assumed, live } = answer;
  const request = explanation.requests.at(-1)?.selector.replace('=', ' ') ?? '';
  return [
    `pod ${answer.pod}: ${answer.verdict.toUpperCase()}, gets ${answer.summary}`,
    row('node', answer.node),
    row('account', explanation.pod.serviceAccount),
    ...(request === '' ? [] : [row('request', request)]),
    ...renderFacts(explanation),
    ...section('Findings:', renderFindings(findings)),
    ...renderUnread(unread),
    ...section(
      'Assumed:',
      assumed.map((each) => `  ${each}`),
    ),
    ...(live === undefined ? [] : section('The agent reports:', liveLines(live))),
  ];
}

function liveLines(live: unknown): readonly string[] {
  return typeof live === 'string'
    ? live
        .trimEnd()
        .split('\n')
        .map((line) => `  ${line}`)
    : [JSON.stringify(live)];
}

export function renderUnread(unread: readonly Unread[]): readonly string[] {
  return section(
    'Not checked:',
    unread.flatMap(({ what, why, loses }) => [`  ${loses}`, `    cannot ${what}: ${why}`]),
  );
}

export function section(title: string, lines: readonly string[]): readonly string[] {
  return lines.length === 0 ? [] : ['', title, ...lines];
}

/** By exec into the agent's pod; a failure is part of the report and does not end it. */
async function askAgent(
  { kubectl, output }: VerbContext,
  pod: RawObject,
  agent: AgentView | undefined,
  { clientId, resource }: PodFlags,
): Promise<unknown> {
  if (agent === undefined) return 'not read: you may see no agent of this node';
  if (!agent.isVerified) return `not read: ${unverified}`;
  const run = await kubectl.run([
    'exec',
    `--namespace=${agent.namespace}`,
    agent.name,
    '--container=nmi',
    ...execFlags(pod, clientId, resource, output === 'text' ? 'text' : 'json'),
  ]);
  if (run.code !== 0) return `not read: ${run.stderr.trim().split('\n').at(-1) ?? ''}`;
  if (output === 'text') return run.stdout;
  return parseRecord(run.stdout) ?? 'not read: the agent printed no JSON';
}

function execFlags(
  pod: RawObject,
  clientId: string | undefined,
  resource: string | undefined,
  output: string,
): readonly string[] {
  return [
    '--',
    'nmi',
    'explain',
    `--pod=${titleOf(pod)}`,
    `--output=${output}`,
    ...(clientId === undefined ? [] : [`--client-id=${clientId}`]),
    ...(resource === undefined ? [] : [`--resource=${resource}`]),
  ];
}

function noSuchPod(name: string, namespace: string, { pods, workloads }: Snapshot): PluginError {
  const names = pods.map(nameOf);
  const like = names.filter((each) => each.startsWith(`${name}-`)).slice(0, 3);
  const workload = workloads.find((each) => nameOf(each) === name);
  const near = nearest(name, names, Math.max(2, name.length / 3));
  const step =
    like.length > 0
      ? `Name one of its pods: ${like.join(', ')}`
      : near !== undefined
        ? `Did you mean ${near}?`
        : `Pods of the namespace: kubectl -n ${namespace} get pods`;
  const what =
    workload === undefined ? '' : `; there is a ${stringAt(workload, 'kind')} of that name`;
  return failedError(`namespace ${namespace} has no pod ${name}${what}`, step);
}

function noSuchObject(
  kind: string,
  name: string,
  namespace: string,
  objects: readonly RawObject[],
): PluginError {
  const elsewhere = objects.find((each) => nameOf(each) === name);
  const names = objects.filter((each) => namespaceOf(each) === namespace).map(nameOf);
  const near = nearest(name, names, Math.max(2, name.length / 3));
  const step =
    elsewhere !== undefined
      ? `There is one in namespace ${namespaceOf(elsewhere)}: use -n ${namespaceOf(elsewhere)}.`
      : near !== undefined
        ? `Did you mean ${near}?`
        : 'List them: kubectl nmi identity list';
  return failedError(`namespace ${namespace} has no ${kind} ${name}`, step);
}
