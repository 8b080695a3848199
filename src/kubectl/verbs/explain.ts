/** `kubectl nmi explain` of a pod: by name, by its workload or by its address. */
import type { Argv } from 'yargs';
import { canonicalIp } from '../../cache/index/ip.ts';
import { stringAt } from '../../base/json-value.ts';
import { nearest } from '../../base/nearest.ts';
import { reaches, renderFindings } from '../../nmi/diagnosis/finding.ts';
import { renderFacts, renderState, row } from '../../nmi/explain/explanation-text.ts';
import type { IdentitySelector } from '../../nmi/grants/choose-identity.ts';
import {
  metadataOf,
  nameOf,
  namespaceOf,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { failedError, usageError, type ExitCode, type PluginError } from '../base/plugin-error.ts';
import { shellWord } from '../base/output.ts';
import type { PodRequest } from '../cluster/cluster-state.ts';
import { readNearby, readPodSnapshot } from '../cluster/pod-snapshot.ts';
import type { Nearby, Snapshot } from '../cluster/snapshot.ts';
import { countUnread, renderUnread } from '../cluster/unread.ts';
import { assessPod, type Assessment } from '../findings/assessment.ts';
import { createContexts } from '../findings/contexts.ts';
import { ownersOf } from '../findings/owners.ts';
import { hasEnded, identityOf, named, namedClientId } from '../findings/pods.ts';
import { ofContext, valueOf } from '../transport/kubectl.ts';
import { askAgentRight, type AgentRight } from './agent-right.ts';
import { agentOn, askAgent, type Live } from './live.ts';
import {
  exitOf,
  namespaceFor,
  print,
  refuseUnknownNamespace,
  type VerbContext,
} from './context.ts';
import { failFlags, reportFlags, switchFlag, type AddVerb } from './verb.ts';

const kinds: Readonly<Record<string, readonly string[]>> = {
  Pod: ['pod', 'pods', 'po'],
  ip: ['ip'],
  Deployment: ['deployment', 'deployments', 'deploy'],
  StatefulSet: ['statefulset', 'statefulsets', 'sts'],
  DaemonSet: ['daemonset', 'daemonsets', 'ds'],
  Job: ['job', 'jobs'],
  CronJob: ['cronjob', 'cronjobs', 'cj'],
};

export const addExplain: AddVerb = (parser, start) =>
  parser.command(
    'explain <what> [name]',
    'explain what a pod gets, by its name, workload or address, and why',
    (verb) =>
      targetArguments(verb)
        .option('client-id', { type: 'string', describe: 'Client id that the request names.' })
        .option('resource', { type: 'string', describe: 'Resource that the request names.' })
        .options({ ...reportFlags, ...failFlags })
        .option('live', switchFlag('Ask the agent on its node too: cached tokens, past requests.'))
        .option('verbose', { ...switchFlag('Show why something was not checked.'), alias: 'v' })
        .example('$0 explain pod web-7d4b9 -n shop', 'what the pod gets')
        .example('$0 explain deploy/web -n shop', 'the same for the newest pod of a Deployment')
        .example('$0 explain ip 10.244.1.7', 'the same for the pod with that address'),
    (flags) =>
      start(flags, async (context) =>
        report(context, await findPod(context, 'explain', flags), flags),
      ),
  );

export interface TargetFlags {
  readonly what: string;
  readonly name: string | undefined;
}

export function targetArguments<T>(verb: Argv<T>) {
  return verb
    .positional('what', {
      type: 'string',
      describe: 'A kind (pod, deployment, statefulset, daemonset, job, cronjob, ip), or KIND/NAME.',
      demandOption: true,
    })
    .positional('name', { type: 'string', describe: 'Name of the object, or the address.' });
}

/** @throws PluginError */
export async function findPod(context: VerbContext, verb: string, flags: TargetFlags) {
  const [kind, name] = parseTarget(verb, flags);
  const find = kind === 'Pod' ? podByName : kind === 'ip' ? podByIp : podOfWorkload;
  return find(context, name, kind);
}

/** `pod web`, `pods web`, `pod/web`, `deployments.apps/web`. @throws PluginError */
function parseTarget(
  verb: string,
  { what, name }: TargetFlags,
): readonly [kind: string, name: string] {
  const [word = '', inner, ...more] = what.split('/');
  const names = [inner, name].filter((each) => each !== undefined && each !== '');
  const [plain = ''] = word.toLowerCase().split('.');
  const [kind] = Object.entries(kinds).find(([, words]) => words.includes(plain)) ?? [];
  if (kind === undefined) {
    throw usageError(
      `${verb} knows no kind ${word}`,
      'Name a pod, deployment, statefulset, daemonset, job, cronjob or ip.',
    );
  }
  const [only] = names;
  if (only !== undefined && names.length === 1 && more.length === 0) return [kind, only];
  throw usageError(
    only === undefined ? `${verb} ${word} needs a name` : `${verb} takes one object`,
    `Write: kubectl nmi ${verb} ${word} NAME`,
  );
}

interface PodFlags {
  readonly clientId: string | undefined;
  readonly resource: string | undefined;
  readonly verbose: boolean;
  readonly live: boolean;
}

/** The pod, with the objects of its namespace. */
type Target = readonly [pod: RawObject, nearby: Nearby];

async function podByName(context: VerbContext, name: string): Promise<Target> {
  const { kubectl, namespace } = context;
  const [read, nearby] = await Promise.allSettled([
    kubectl.get('pods', namespace ?? '', name),
    readNearby(context, namespace ?? ofContext),
  ]);
  const pod = settledValue(read);
  if (!pod.ok && pod.failure.kind === 'not-found') {
    throw await noSuchPod(context, name, settledValue(nearby));
  }
  const title = namespace === undefined ? name : `${namespace}/${name}`;
  return [valueOf(pod, `get pod ${title}`), settledValue(nearby)];
}

function settledValue<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'fulfilled') return result.value;
  throw result.reason;
}

async function podByIp(context: VerbContext, text: string): Promise<Target> {
  const ip = canonicalIp(text);
  if (ip === undefined) throw usageError(`${text} is no IP address`, 'Write it as 10.244.1.7.');
  const fieldSelector = `status.podIP=${ip}`;
  const everywhere = await context.kubectl.list('pods', undefined, { fieldSelector });
  const isLimited = !everywhere.ok && everywhere.failure.kind === 'forbidden';
  const scope = isLimited ? await namespaceFor(context) : '';
  const found = isLimited
    ? await context.kubectl.list('pods', scope, { fieldSelector })
    : everywhere;
  const owners = valueOf(found, `list pods${isLimited ? ` in namespace ${scope}` : ''}`).filter(
    (each) => specOf(each)['hostNetwork'] !== true,
  );
  // Another pod may have the address of one that has ended.
  const pod = owners.find((each) => !hasEnded(each)) ?? owners[0];
  if (pod === undefined) {
    throw failedError(
      `no pod has the address ${ip}${isLimited ? ` in namespace ${scope}, the only one that you may list` : ''}`,
      'An address of a node belongs to pods on the host network; name such a pod instead.',
    );
  }
  return [pod, await readNearby(context, namespaceOf(pod))];
}

/** One pod of a workload: they have the same template. */
async function podOfWorkload(context: VerbContext, name: string, kind: string): Promise<Target> {
  const { kubectl, namespace, io } = context;
  const nearby = await readNearby(context, namespace ?? ofContext);
  const workload = nearby.workloads.find((each) => each['kind'] === kind && nameOf(each) === name);
  if (workload === undefined) throw await noSuchWorkload(context, kind, name, nearby);
  const scope = namespaceOf(workload);
  const read = valueOf(await kubectl.list('pods', scope), `list pods in namespace ${scope}`);
  const sinceOf = (each: RawObject) => stringAt(metadataOf(each), 'creationTimestamp');
  const pods = read
    .filter((each) => ownersOf(each, [workload]).length > 0)
    // The newest first: the one that a change of the template has made.
    // No mutation: sorting only depends on whether the result is negative.
    .toSorted((one, other) => (sinceOf(one) < sinceOf(other) ? 1 : -1));
  const pod = pods.find((each) => !hasEnded(each)) ?? pods[0];
  const title = `${kind} ${titleOf(workload)}`;
  if (pod === undefined) {
    const step = `See why: kubectl -n ${scope} describe ${kind.toLowerCase()} ${name}`;
    throw failedError(`${title} has no pod`, step);
  }
  if (pods.length > 1) io.stderr(`${title} has ${pods.length} pods; this is ${nameOf(pod)}.\n`);
  return [pod, nearby];
}

async function report(
  context: VerbContext,
  [pod, nearby]: Target,
  flags: PodFlags,
): Promise<ExitCode> {
  const nowWallMs = context.io.wallMs();
  // The identity that an SDK in the pod would request.
  const clientId = flags.clientId ?? namedClientId(pod);
  const selector: IdentitySelector =
    clientId === undefined ? { kind: 'none' } : { kind: 'client_id', value: clientId };
  const request = { selector, resource: flags.resource };
  const snapshot = await readPodSnapshot(context, pod, nearby, nowWallMs);
  const { findings: ofRight, unread: ofQuestion } = await checkRight(
    context,
    pod,
    snapshot,
    request,
  );
  const whole = { ...snapshot, unread: [...snapshot.unread, ...ofQuestion] };
  const assessed = assessPod(pod, createContexts(whole, nowWallMs), request, ofRight);
  if (assessed === undefined) {
    throw failedError(
      `pod ${titleOf(pod)} cannot be read: an agent would ignore it`,
      'Look at the object: kubectl get pod -o yaml',
    );
  }
  const { verdict, ...rest } = assessed;
  const { kind, summary, cachedUntil } = verdict;
  const ofPod = { pod: titleOf(pod), node: stringAt(specOf(pod), 'nodeName') };
  const { agentNamespace } = context;
  const asked = { resource: flags.resource, 'client-id': clientId };
  const findAgent = () => agentOn(pod, snapshot.agents, agentNamespace);
  const live = flags.live ? await askAgent(context.kubectl, pod, findAgent, asked) : undefined;
  const answer = { kind: 'PodExplanation', ...ofPod, verdict: kind, summary, cachedUntil, ...rest };
  print(context, { ...answer, live }, () => [
    ...renderAssessment(assessed, flags),
    ...section('Live, from the agent on the node:', live === undefined ? [] : renderLive(live)),
  ]);
  // A finding that leaves the verdict as it is, even an error, is no more than a warning here.
  const hasWarning = reaches(assessed.findings, 'warning');
  return exitOf(context, (limit) => kind !== 'granted' || (limit === 'warning' && hasWarning));
}

/** Of the agents, on the identity that the request gets. */
async function checkRight(
  { kubectl, io }: VerbContext,
  pod: RawObject,
  snapshot: Snapshot,
  request: PodRequest,
): Promise<AgentRight> {
  const explanation = createContexts(snapshot, io.wallMs()).of(pod).view.explainPod(pod, request);
  const view = explanation === undefined ? undefined : identityOf(explanation);
  const isObject = view?.kind === 'azure-identity';
  const identity = isObject ? named(snapshot.identities, view.name, pod) : undefined;
  if (identity === undefined) return { findings: [], unread: [] };
  return askAgentRight(kubectl, identity, snapshot.agents);
}

function renderAssessment(
  { verdict: { kind, summary }, explanation, findings, unread }: Assessment,
  { verbose, clientId, resource }: PodFlags,
): readonly string[] {
  const { namespace, name, serviceAccount } = explanation.pod;
  const request = explanation.requests.at(-1)?.selector.replace('=', ' ') ?? '';
  // The pod of `test` has no label of an exception, and names the client id that this pod names.
  const isOfNode = (identityOf(explanation)?.kind ?? 'node') === 'node';
  const of = resource === undefined ? '' : ` --resource ${shellWord(resource)}`;
  const next =
    kind === 'granted' && !isOfNode && clientId === undefined
      ? ` A token shows it: kubectl nmi test --pod ${name} -n ${namespace}${of}`
      : '';
  return [
    `pod ${namespace}/${name}: ${kind.toUpperCase().replace('-', ' ')}, ${summary}`,
    ...countUnread(unread).map((line) => `  ${line}${next}`),
    row('node', explanation.node.name || 'none yet'),
    row('account', serviceAccount),
    ...(request === '' ? [] : [row('request', request)]),
    ...renderFacts(explanation),
    ...section('Findings:', renderFindings(findings)),
    ...(verbose ? renderUnread(unread) : []),
  ];
}

function renderLive(live: Live): readonly string[] {
  return live.kind === 'unread' ? [`  ${live.problem}`] : renderState(live);
}

function section(title: string, lines: readonly string[]): readonly string[] {
  return lines.length === 0 ? [] : ['', title, ...lines];
}

/** @param step default: the object with nearly that name, or how to list them. */
async function noSuch(
  context: VerbContext,
  [kind, name]: readonly [kind: string, name: string],
  among: readonly RawObject[],
  { step, more = '' }: { readonly step?: string | undefined; readonly more?: string } = {},
): Promise<PluginError> {
  const namespace = await namespaceFor(context);
  await refuseUnknownNamespace(context, namespace);
  const near = nearest(name, among.map(nameOf));
  const list = `List them: kubectl -n ${namespace} get ${kind.toLowerCase()}s`;
  const meant = near === undefined ? list : `Did you mean ${near}?`;
  return failedError(`namespace ${namespace} has no ${kind} ${name}${more}`, step ?? meant);
}

async function noSuchPod(
  context: VerbContext,
  name: string,
  { workloads }: Nearby,
): Promise<PluginError> {
  const read = await context.kubectl.list('pods', await namespaceFor(context));
  const among = read.ok ? read.value : [];
  const like = among.map(nameOf).filter((each) => each.startsWith(`${name}-`));
  const workload = workloads.find((each) => nameOf(each) === name);
  return noSuch(context, ['pod', name], among, {
    step: like.length > 0 ? `Name one of its pods: ${like.slice(0, 3).join(', ')}` : undefined,
    more: workload === undefined ? '' : `; there is a ${stringAt(workload, 'kind')} of that name`,
  });
}

async function noSuchWorkload(
  context: VerbContext,
  kind: string,
  name: string,
  { workloads, unread }: Nearby,
): Promise<PluginError> {
  const hidden = unread.find(({ what }) => what.includes(`list ${kind.toLowerCase()}s.`));
  if (hidden !== undefined) {
    return failedError(`cannot ${hidden.what}: ${hidden.why}`, 'Name one of its pods instead.');
  }
  const among = workloads.filter((each) => each['kind'] === kind);
  return noSuch(context, [kind, name], among);
}
