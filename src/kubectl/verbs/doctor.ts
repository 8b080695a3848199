/** `kubectl nmi doctor`: whether a cluster suits the agent, and whether the agent works in it. */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { renderTable } from '../../base/printable.ts';
import {
  conditionOf,
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  type RawObject,
} from '../base/object.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import {
  beginsWith,
  unverified,
  verifiedOf,
  viewAgent,
  type AgentView,
} from '../cluster/agents.ts';
import { group, identityResources } from '../cluster/resources.ts';
import { describeUnread, renderUnread, valueOrUnread, type Unread } from '../cluster/unread.ts';
import { askRight, everywhere, type Answer, type Right } from '../cluster/rights.ts';
import { isLabeled, readAgents } from '../cluster/trusted-agents.ts';
import {
  findingOfIdentityRight,
  rightsForIdentities,
  rightsOfAgent,
  type IdentityRight,
} from '../findings/agent-rights.ts';
import { examineAgents, findMic } from '../findings/agents.ts';
import { findUserAssigned, isOfKarpenter } from '../findings/karpenter.ts';
import {
  createFinding,
  type Finding,
  oneFinding,
  reaches,
  renderFindings,
  sortFindings,
} from '../../nmi/diagnosis/finding.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import { exitOf, print, type VerbContext } from './context.ts';
import { section } from './explain.ts';
import { failFlags, reportFlags, scopeFlags, switchFlag, type AddVerb } from './verb.ts';

export const addDoctor: AddVerb = (parser, start) =>
  parser.command(
    'doctor',
    'checks the cluster before (--pre) and after an installation',
    (verb) =>
      verb
        .options({ ...reportFlags, ...failFlags, ...scopeFlags })
        .option('pre', switchFlag('Before an installation: no agent is looked for.'))
        .example('$0 doctor --pre', 'is the cluster fit for the agent?')
        .example('$0 doctor', 'is the installation complete?'),
    (flags) => start(flags, (context) => doctor(context, flags.pre)),
  );

interface Examined {
  readonly checks: readonly { readonly check: string; readonly result: string }[];
  readonly findings: readonly Finding[];
}

function examined(check: string, result: string, findings: readonly Finding[]): Examined {
  return { checks: [{ check, result }], findings };
}

async function doctor(context: VerbContext, isPre: boolean): Promise<ExitCode> {
  const { kubectl } = context;
  const unread: Unread[] = [];
  const list: List = async (resource, loses, what = `list ${resource}`) =>
    valueOrUnread(await kubectl.list(resource, undefined), what, loses, unread);
  const server = await checkServer(context);
  const [definitions, rights, nodes, pods, read] = await Promise.all([
    checkDefinitions(context, unread),
    checkOwnRights(context, unread),
    list('nodes', 'nodes without an agent'),
    list('pods', 'agents and leftovers of aad-pod-identity', 'list pods of all namespaces'),
    isPre ? undefined : readAgents(context),
  ]);
  const agents =
    read && valueOrUnread(read, 'list the pods of the agents', 'agents and their rights', unread);
  const parts = [
    server,
    definitions,
    rights,
    checkPods(pods),
    ...(isPre ? [checkNodes(nodes)] : []),
    ...(agents === undefined
      ? []
      : [
          checkAgents(nodes, agents, elsewhereIn(pods, context.agentNamespace)),
          await checkAgentRights(kubectl, list, agents, unread),
          examined('identity owners', ownersOf(agents), []),
          ...(pods === undefined ? [] : checkParts(pods, context.agentNamespace)),
        ]),
    await checkKarpenter(list, nodes, pods),
    await checkPolicies(list),
  ];
  const findings = sortFindings(parts.flatMap((part) => part.findings));
  const checks = parts.flatMap((part) => part.checks);
  print(context, { kind: 'Diagnosis', checks, findings, unread }, () => [
    ...renderTable(
      ['CHECK', 'RESULT'],
      checks.map(({ check, result }) => [check, result]),
    ),
    ...section('Findings:', renderFindings(findings)),
    ...renderUnread(unread),
  ]);
  return exitOf(context, (limit) => reaches(findings, limit));
}

/** The result of what could not be seen; why not is among the unread. */
const notChecked = 'not checked';

/** Of all namespaces; without the right, what is lost is among the unread. */
type List = (
  resource: string,
  loses: string,
  what?: string,
) => Promise<readonly RawObject[] | undefined>;

async function checkServer({ kubectl }: VerbContext): Promise<Examined> {
  const run = await kubectl.run(['version', '--output=json']);
  const server = asRecord(parseRecord(run.stdout)?.['serverVersion']);
  if (server === undefined) throw toPluginError(classifyFailure(run), 'reach the API server');
  const version = stringAt(server, 'gitVersion');
  const [, minor = '28'] = /^v1\.(\d+)/.exec(version) ?? [];
  const old = { object: 'Cluster', text: `The API server is ${version}.` };
  return examined('API server', version, Number(minor) < 28 ? oneFinding('server_old', old) : []);
}

/** Fields that this version added to each kind; old definitions lack them. */
const newFields: Readonly<Record<string, readonly string[]>> = {
  azureidentities: [
    'spec.allowedResources',
    'spec.federation',
    'spec.notBefore',
    'status.conditions',
  ],
  azureidentitybindings: ['spec.serviceAccount', 'status.conditions'],
  azurepodidentityexceptions: [],
  azureidentitygrants: [],
};

async function checkDefinitions({ kubectl }: VerbContext, unread: Unread[]): Promise<Examined> {
  const reads = await Promise.all(
    Object.keys(newFields).map(async (plural) => ({
      plural,
      read: await kubectl.get(
        'customresourcedefinitions.apiextensions.k8s.io',
        '',
        `${plural}.${group}`,
      ),
    })),
  );
  const findings = reads.flatMap(({ plural, read }) => {
    const object = `CustomResourceDefinition ${plural}.${group}`;
    if (read.ok) {
      const lacking = (newFields[plural] ?? []).filter((field) => !hasField(read.value, field));
      const text = `It lacks the fields ${lacking.join(', ')}.`;
      return lacking.length === 0 ? [] : oneFinding('crd_old', { object, text });
    }
    if (read.failure.kind === 'not-found') {
      return oneFinding('crd_missing', { object, text: 'It is not in the cluster.' });
    }
    const loses = `version of the definition ${plural}`;
    unread.push(describeUnread(`get ${object}`, read.failure, loses));
    return [];
  });
  const found = reads.filter(({ read }) => read.ok).length;
  const unknown = reads.filter(({ read }) => !read.ok && read.failure.kind !== 'not-found').length;
  const rest = unknown === 0 ? '' : `, ${unknown} ${notChecked}`;
  const result = unknown === reads.length ? notChecked : `${found} of ${reads.length}${rest}`;
  return examined('custom resource definitions', result, findings);
}

function hasField(definition: RawObject, path: string): boolean {
  const keys = `schema.openAPIV3Schema.${path.replace(/[^.]+/g, 'properties.$&')}`.split('.');
  return recordsAt(specOf(definition), 'versions').some(
    (version) =>
      keys.reduce((record, key) => asRecord(record?.[key]), asRecord(version)) !== undefined,
  );
}

async function checkOwnRights(
  { kubectl, allNamespaces, namespace }: VerbContext,
  unread: Unread[],
): Promise<Examined> {
  const own = namespace === undefined ? [] : [`--namespace=${namespace}`];
  const where = allNamespaces ? everywhere : own;
  const resources = ['pods', ...Object.values(identityResources)];
  const answers = await Promise.all(
    resources.map((resource) => askRight(kubectl, { verb: 'list', resource }, where)),
  );
  const result = resultOf('enough for explain and analyze', answers, 'your rights', unread);
  const findings = refusedOf(answers).map(({ right: { resource } }) =>
    createFinding('own_rights', {
      object: `Resource ${resource}`,
      text: `You may not list ${resource}: explain and analyze need it.`,
      severity: 'warning',
    }),
  );
  return examined('your rights', result, findings);
}

function refusedOf<T extends Right>(answers: readonly Answer<T>[]): readonly Answer<T>[] {
  return answers.filter(({ kind }) => kind === 'no');
}

function resultOf(
  complete: string,
  answers: readonly Answer<Right>[],
  loses: string,
  unread: Unread[],
): string {
  const unknown = answers.filter(({ kind }) => kind === 'unknown');
  const failed = unknown.find(({ failure }) => failure !== undefined);
  if (failed?.failure !== undefined) {
    const what = `ask the server who may ${failed.right.verb} ${failed.right.resource}`;
    unread.push(describeUnread(what, failed.failure, loses));
  }
  const missing = refusedOf(answers).length;
  if (unknown.length === answers.length) return notChecked;
  const rest = unknown.length === 0 ? '' : `, ${unknown.length} ${notChecked}`;
  return missing === 0 && unknown.length === 0 ? complete : `${missing} missing${rest}`;
}

function checkPods(pods: readonly RawObject[] | undefined): Examined {
  const findings = findMic(pods ?? []);
  const seen = findings.length === 0 ? 'not there' : 'runs';
  return examined('MIC of aad-pod-identity', pods === undefined ? notChecked : seen, findings);
}

/** What the chart runs beside the agents. Where the boot guard is taken away, its pods do so. */
function checkParts(pods: readonly RawObject[], agentNamespace: string): readonly Examined[] {
  const own = pods.filter((pod) => namespaceOf(pod) === agentNamespace);
  const parts = Map.groupBy(own, (pod) => labelsOf(pod).get('app.kubernetes.io/component'));
  const isReady = (pod: RawObject) => conditionOf(pod, 'Ready')?.['status'] === 'True';
  const guards = (parts.get('boot-guard') ?? []).filter((pod) =>
    beginsWith(pod, 'redirect guard-boot'),
  );
  const advice = 'not by the chart: see "Nodes after a reboot" in docs/install.md';
  const on = `on ${guards.filter(isReady).length} of ${guards.length} nodes`;
  const missing = 'not written: the Deployment nmi-conditions has no ready pod';
  const isWritten = parts.get('conditions')?.some(isReady) === true;
  return [
    examined('boot guard', guards.length === 0 ? advice : on, []),
    examined('status conditions', isWritten ? 'written' : missing, []),
  ];
}

function checkNodes(nodes: readonly RawObject[] | undefined): Examined {
  const findings = examineAgents(nodes, []).filter(
    ({ code }) => code === 'kernel_old' || code === 'nodes_missing',
  );
  return examined('nodes', nodes === undefined ? notChecked : String(nodes.length), findings);
}

async function checkKarpenter(
  list: List,
  nodes: readonly RawObject[] = [],
  pods: readonly RawObject[] = [],
): Promise<Examined> {
  const made = nodes.filter(isOfKarpenter);
  if (made.length === 0) return { checks: [], findings: [] };
  const title = 'nodes of Karpenter';
  const identities = await list(identityResources.identities, title);
  const bindings = await list(identityResources.bindings, title);
  if (identities === undefined || bindings === undefined) return examined(title, notChecked, []);
  const found = findUserAssigned(made, { identities, bindings, pods });
  return examined(title, String(made.length), found);
}

function checkAgents(
  nodes: readonly RawObject[] | undefined,
  agents: readonly AgentView[],
  elsewhere: readonly AgentView[],
): Examined {
  const ready = agents.filter(({ isReady, isOldNmi }) => isReady && !isOldNmi);
  const where = nodes === undefined ? `, nodes ${notChecked}` : `, on ${nodes.length} nodes`;
  const result = `${ready.length} ready of ${agents.length}${where}`;
  return examined('agents', result, examineAgents(nodes, agents, elsewhere));
}

/** Of another release. Who may only write pods of a namespace has none on the host network as a rule. */
function elsewhereIn(
  pods: readonly RawObject[] = [],
  agentNamespace: string,
): readonly AgentView[] {
  const others = pods.filter((pod) => namespaceOf(pod) !== agentNamespace && isLabeled(pod));
  return others.filter((pod) => specOf(pod)['hostNetwork'] === true).map(viewAgent);
}

/** Whether the agents enforce them, and what to do if not. */
function ownersOf(agents: readonly AgentView[]): string {
  const own = verifiedOf(agents).filter(({ isOldNmi }) => !isOldNmi);
  const modes = [...new Set(own.map(({ config }) => config?.identityOwners))];
  const open = modes.find((each) => each !== 'enforce');
  if (own.length === 0 || modes.includes(undefined)) return notChecked;
  if (open === undefined) return 'enforced';
  const where = modes.length > 1 ? ' on some nodes' : '';
  return `not enforced (${open}${where}): apply what \`kubectl nmi grants\` prints, then set nmi.identityOwners=enforce`;
}

/** Impersonates the agent's service account if the user may; else its permissions are unknown. */
async function checkAgentRights(
  kubectl: Kubectl,
  list: List,
  agents: readonly AgentView[],
  unread: Unread[],
): Promise<Examined> {
  const title = 'rights of the agent';
  const verified = verifiedOf(agents);
  const agent = verified.find(({ isOldNmi }) => !isOldNmi) ?? verified[0];
  if (agent === undefined) {
    if (agents.length === 0) return { checks: [], findings: [] };
    unread.push({ what: 'know the service account of the agents', why: unverified, loses: title });
    return examined(title, notChecked, []);
  }
  const { namespace, serviceAccount } = agent;
  const user = `system:serviceaccount:${namespace}:${serviceAccount}`;
  const [all, { ofIdentities, wide }] = await Promise.all([
    Promise.all(rightsOfAgent(agent).map((right) => askRight(kubectl, right, everywhere, user))),
    askForIdentities(kubectl, list, agent, user, unread),
  ]);
  const answers = all.map((answer) => {
    const { verb, resource, isPerNamespace } = answer.right;
    if (answer.kind !== 'no' || isPerNamespace !== true) return answer;
    const what = `see in which namespaces the agent may ${verb} ${resource}`;
    const why = 'it may not in all; rbac.federationNamespaces must have those of its pods';
    unread.push({ what, why, loses: 'rights that --workload-identity needs' });
    return { ...answer, kind: 'unknown' as const };
  });
  const result = resultOf('complete', [...answers, ...ofIdentities], title, unread);
  const account = `${namespace}/${serviceAccount}`;
  const object = `ServiceAccount ${account}`;
  const findings = [
    ...refusedOf(answers).map(({ right: { verb, resource } }) => {
      const text = `It may not ${verb} ${resource} in all namespaces.`;
      return createFinding('agent_rights', { object, text });
    }),
    ...refusedOf(ofIdentities).map(({ right }) => findingOfIdentityRight(account, right)),
    ...wide.map(({ verb, resource }) => {
      const text = `It may ${verb} ${resource} in all namespaces: so may anyone who takes over one agent.`;
      return createFinding('agent_rights_wide', { object, text });
    }),
  ];
  return examined(title, result, findings);
}

/** Most namespaces that are asked for one by one: each takes a process. */
const maxNamespaces = 20;

async function askForIdentities(
  kubectl: Kubectl,
  list: List,
  agent: AgentView,
  user: string,
  unread: Unread[],
) {
  const loses = 'rights that the identities need';
  const what = 'list AzureIdentities of all namespaces';
  const identities = await list(identityResources.identities, loses, what);
  const rights = rightsForIdentities(identities ?? [], agent);
  const given = new Set<string>();
  /** Those that the agent has everywhere, and not only as its node. */
  const wide: IdentityRight[] = [];
  for (const [resource, right] of new Map(rights.map((each) => [each.resource, each]))) {
    const { kind } = await askRight(kubectl, right, everywhere, user);
    if (kind === 'yes') wide.push(right);
    if (kind === 'yes' || kind === 'as_node') given.add(resource);
  }
  const open = rights.filter(({ resource }) => !given.has(resource));
  if (open.length > maxNamespaces) {
    const why = `${open.length} namespaces have identities, and doctor asks for ${maxNamespaces}`;
    unread.push({ what: 'ask for each namespace', why, loses });
  }
  const ofIdentities = await Promise.all(
    open
      .slice(0, maxNamespaces)
      .map((right) => askRight(kubectl, right, [`--namespace=${right.namespace}`], user)),
  );
  return { ofIdentities, wide };
}

async function checkPolicies(list: List): Promise<Examined> {
  const resource = 'validatingwebhookconfigurations.admissionregistration.k8s.io';
  const webhooks = await list(resource, 'admission policies');
  if (webhooks === undefined) return { checks: [], findings: [] };
  const engines = webhooks.filter((each) => /gatekeeper|kyverno|azure-policy/.test(nameOf(each)));
  const findings = engines.map((each) => {
    const object = `ValidatingWebhookConfiguration ${nameOf(each)}`;
    return createFinding('policy_engine', { object, text: 'It looks at pods.' });
  });
  return examined('admission policies', engines.map(nameOf).join(', ') || 'none known', findings);
}
