/** `kubectl nmi doctor`: whether a cluster suits the agent, and whether the agent works in it. */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { renderTable } from '../base/output.ts';
import { labelsOf, nameOf, recordsAt, specOf, type RawObject } from '../base/object.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { listNodes } from '../cluster/agent-state.ts';
import type { AgentView } from '../cluster/agents.ts';
import { group, identityResources } from '../cluster/resources.ts';
import { describeUnread, valueOrUnread, type Unread } from '../cluster/snapshot.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import { examineAgents, findMic } from '../findings/agents.ts';
import {
  createFinding,
  renderFindings,
  sortFindings,
  type Finding,
} from '../../nmi/diagnosis/finding.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import { exitOf, print, type VerbContext } from './context.ts';
import { renderUnread, section } from './explain.ts';
import { switchFlag, type AddVerb } from './verb.ts';

export const addDoctor: AddVerb = (parser, start) =>
  parser.command(
    'doctor',
    'checks the cluster before (--pre) and after an installation',
    (verb) =>
      verb
        .option('pre', switchFlag('Before an installation: no agent is looked for.'))
        .example('$0 doctor --pre', 'is the cluster fit for the agent?')
        .example('$0 doctor', 'is the installation complete?'),
    (flags) => start(flags, (context) => doctor(context, flags.pre)),
  );

interface Check {
  readonly check: string;
  readonly result: string;
}

/** Result of one subject. */
interface Examined {
  readonly checks: readonly Check[];
  readonly findings: readonly Finding[];
}

function examined(check: string, result: string, findings: readonly Finding[]): Examined {
  return { checks: [{ check, result }], findings };
}

async function doctor(context: VerbContext, isPre: boolean): Promise<ExitCode> {
  const unread: Unread[] = [];
  const server = await checkServer(context);
  const [definitions, rights, nodes, pods, agents] = await Promise.all([
    checkDefinitions(context, unread),
    checkOwnRights(context),
    listNodes(context.kubectl, unread),
    listPods(context, unread),
    isPre ? undefined : findAgents(context, unread),
  ]);
  const parts = [
    server,
    definitions,
    rights,
    checkPods(pods ?? []),
    ...(isPre ? [checkNodes(nodes)] : []),
    ...(agents === undefined
      ? []
      : [
          checkAgents(nodes, agents),
          await checkAgentRights(context, agents, unread),
          ...(pods === undefined ? [] : [checkBootGuard(pods)]),
        ]),
    await checkPolicies(context, unread),
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
  return exitOf(
    context,
    findings.every(({ severity }) => severity === 'info'),
  );
}

async function findAgents(context: VerbContext, unread: Unread[]) {
  const read = await readAgents(context);
  return valueOrUnread(read, 'list the pods of the agents', 'agents and their rights', unread);
}

/** @throws PluginError when the server cannot be reached. */
async function checkServer({ kubectl }: VerbContext): Promise<Examined> {
  const run = await kubectl.run(['version', '--output=json']);
  const server = asRecord(parseRecord(run.stdout)?.['serverVersion']);
  if (server === undefined) throw toPluginError(classifyFailure(run), 'reach the API server');
  const version = stringAt(server, 'gitVersion');
  const minor = Number(/^v1\.(\d+)/.exec(version)?.[1] ?? '0');
  const text = `The API server is ${version}.`;
  const old = minor >= 28 ? [] : [createFinding('server_old', { object: 'Cluster', text })];
  return examined('API server', version, old);
}

/** Fields that this version added to each kind; old definitions lack them. */
const newFields: Readonly<Record<string, readonly string[]>> = {
  azureidentities: ['spec.allowedResources', 'spec.federation', 'status.conditions'],
  azureidentitybindings: ['spec.serviceAccount', 'status.conditions'],
  azurepodidentityexceptions: [],
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
      return lacking.length === 0 ? [] : [createFinding('crd_old', { object, text })];
    }
    if (read.failure.kind === 'not-found') {
      return [createFinding('crd_missing', { object, text: 'It is not in the cluster.' })];
    }
    unread.push(describeUnread(`get ${object}`, read, `version of the definition ${plural}`));
    return [];
  });
  const found = reads.filter(({ read }) => read.ok).length;
  return examined('custom resource definitions', `${found} of ${reads.length}`, findings);
}

/** @param path of a field, such as `spec.federation`. */
function hasField(definition: RawObject, path: string): boolean {
  const keys = [
    'schema',
    'openAPIV3Schema',
    ...path.split('.').flatMap((key) => ['properties', key]),
  ];
  return recordsAt(specOf(definition), 'versions').some(
    (version) =>
      keys.reduce((record, key) => asRecord(record?.[key]), asRecord(version)) !== undefined,
  );
}

const ownRights = ['pods', ...Object.values(identityResources)];

async function checkOwnRights({
  kubectl,
  allNamespaces,
  namespace,
}: VerbContext): Promise<Examined> {
  const where = allNamespaces
    ? ['--all-namespaces']
    : namespace === undefined
      ? []
      : [`--namespace=${namespace}`];
  const answers = await Promise.all(
    ownRights.map(async (resource) => ({
      resource,
      run: await kubectl.run(['auth', 'can-i', 'list', resource, ...where]),
    })),
  );
  const lacking = answers.filter(({ run }) => run.stdout.trim().startsWith('no'));
  const findings = lacking.map(({ resource }) =>
    createFinding('own_rights', {
      object: `Resource ${resource}`,
      text: `You may not list ${resource}: explain and analyze need it.`,
      severity: 'warning',
    }),
  );
  return examined('your rights', missingOr('enough for explain and analyze', lacking), findings);
}

async function listPods({ kubectl }: VerbContext, unread: Unread[]) {
  const read = await kubectl.list('pods', undefined);
  const loses = 'agents and leftovers of aad-pod-identity';
  return valueOrUnread(read, 'list pods of all namespaces', loses, unread);
}

function checkPods(pods: readonly RawObject[]): Examined {
  const findings = findMic(pods);
  return examined(
    'MIC of aad-pod-identity',
    findings.length === 0 ? 'not there' : 'runs',
    findings,
  );
}

function checkBootGuard(pods: readonly RawObject[]): Examined {
  const isOn = pods.some(
    (pod) => labelsOf(pod).get('app.kubernetes.io/component') === 'boot-guard',
  );
  const advice = 'not by the chart: see "Nodes after a reboot" in docs/install.md';
  return examined('boot guard', isOn ? 'on' : advice, []);
}

function checkNodes(nodes: readonly RawObject[]): Examined {
  const findings = examineAgents(nodes, []).filter(
    ({ code }) => code === 'kernel_old' || code === 'nodes_missing',
  );
  return examined('nodes', String(nodes.length), findings);
}

function checkAgents(nodes: readonly RawObject[], agents: readonly AgentView[]): Examined {
  const ready = agents.filter(({ isReady, isOldNmi }) => isReady && !isOldNmi);
  const result = `${ready.length} ready of ${agents.length}, on ${nodes.length} nodes`;
  return examined('agents', result, examineAgents(nodes, agents));
}

interface Right {
  readonly verb: string;
  readonly resource: string;
}

/** Permissions that the agent uses in all namespaces. The replaced system writes nothing. */
function rightsOf({ config, isOldNmi }: AgentView): readonly Right[] {
  const reads = ownRights.flatMap((resource) =>
    ['list', 'watch'].map((verb) => ({ verb, resource })),
  );
  const writes = config?.events === true && !isOldNmi;
  return writes ? [...reads, { verb: 'create', resource: 'events.events.k8s.io' }] : reads;
}

/** Impersonates the agent's service account if the user may; else its permissions are unknown. */
async function checkAgentRights(
  { kubectl }: VerbContext,
  [agent]: readonly AgentView[],
  unread: Unread[],
): Promise<Examined> {
  if (agent === undefined) return { checks: [], findings: [] };
  const { namespace, serviceAccount } = agent;
  const user = `system:serviceaccount:${namespace}:${serviceAccount}`;
  const answers = await Promise.all(
    rightsOf(agent).map(async ({ verb, resource }) => ({
      verb,
      resource,
      run: await kubectl.run(['auth', 'can-i', verb, resource, '--all-namespaces', `--as=${user}`]),
    })),
  );
  const failed = answers.find(({ run }) => !/^(?:yes|no)/.test(run.stdout));
  if (failed !== undefined) {
    const failure = classifyFailure(failed.run);
    unread.push(
      describeUnread(`impersonate ${user}`, { ok: false, failure }, 'rights of the agent'),
    );
    return { checks: [], findings: [] };
  }
  const lacking = answers.filter(({ run }) => run.stdout.startsWith('no'));
  const findings = lacking.map(({ resource, verb }) =>
    createFinding('agent_rights', {
      object: `ServiceAccount ${serviceAccount}`,
      text: `It may not ${verb} ${resource} in all namespaces.`,
    }),
  );
  return examined('rights of the agent', missingOr('complete', lacking), findings);
}

function missingOr(complete: string, missing: readonly unknown[]): string {
  return missing.length === 0 ? complete : `${missing.length} missing`;
}

async function checkPolicies({ kubectl }: VerbContext, unread: Unread[]): Promise<Examined> {
  const resource = 'validatingwebhookconfigurations.admissionregistration.k8s.io';
  const read = await kubectl.list(resource, undefined);
  const webhooks = valueOrUnread(read, `list ${resource}`, 'admission policies', unread);
  if (webhooks === undefined) return { checks: [], findings: [] };
  const engines = webhooks.filter((each) => /gatekeeper|kyverno|azure-policy/.test(nameOf(each)));
  const findings = engines.map((each) =>
    createFinding('policy_engine', {
      object: `ValidatingWebhookConfiguration ${nameOf(each)}`,
      text: 'It looks at pods.',
    }),
  );
  return examined('admission policies', engines.map(nameOf).join(', ') || 'none known', findings);
}
