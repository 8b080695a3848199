/** `kubectl nmi doctor`: whether a cluster suits the agent, and whether the agent works in it. */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { renderTable } from '../../base/printable.ts';
import {
  createFinding,
  type Finding,
  oneFinding,
  reaches,
  renderFindings,
  sortFindings,
} from '../../nmi/diagnosis/finding.ts';
import {
  conditionOf,
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { beginsWith, viewAgent, type AgentView } from '../cluster/agents.ts';
import { group, identityResources } from '../cluster/resources.ts';
import { isLabeled, readAgents } from '../cluster/trusted-agents.ts';
import { describeUnread, mergeCauses, renderUnread, type Unread } from '../cluster/unread.ts';
import { examineAgents, findMic } from '../findings/agents.ts';
import { findUserAssigned, isOfKarpenter } from '../findings/karpenter.ts';
import { hasEnded } from '../findings/pods.ts';
import type { Read } from '../transport/kubectl.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import {
  judgeAgentRights,
  readAgentRights,
  readTrusted,
  type Judged,
  type Look,
} from './agent-right.ts';
import { exitOf, print, type VerbContext } from './context.ts';
import { durationOf } from './flag-values.ts';
import { failFlags, reportFlags, switchFlag, type AddVerb } from './verb.ts';

export const addDoctor: AddVerb = (parser, start) =>
  parser.command(
    'doctor',
    'checks the cluster before (--pre) and after an installation',
    (verb) =>
      verb
        .options({ ...reportFlags, ...failFlags })
        .option('pre', switchFlag('Before an installation: no agent is looked for.'))
        .option('wait', {
          describe: 'Repeat the checks until no error is left, for 5m or as long as given (90s).',
        })
        .example('$0 doctor --pre', 'is the cluster fit for the agent?')
        .example('$0 doctor --wait', 'is the installation complete, or soon?'),
    ({ pre, wait = 0, ...flags }) => {
      const waitMs = durationOf('--wait', wait === true ? '5m' : String(wait));
      return start(flags, (context) => doctor(context, pre ? 'before' : 'after', waitMs));
    },
  );

type When = 'before' | 'after';

interface Check {
  readonly title: string;
  readonly run: (look: Look) => Promise<Judged | undefined>;
  /** Of the installation; without it, both. */
  readonly when: When | undefined;
}

/** @param read undefined is what the user may not see. @param judge of what the cluster has, if it has it. */
function check<T>(
  title: string,
  read: (look: Look) => Promise<T | undefined>,
  judge: (facts: T) => Judged | undefined,
  when?: When,
): Check {
  const run = async (look: Look) => {
    const facts = await read(look);
    return facts === undefined ? { result: '' } : judge(facts);
  };
  return { title, run, when };
}

const notChecked = 'not checked';
const webhooks = 'validatingwebhookconfigurations.admissionregistration.k8s.io';

const [serverCheck, ...checks]: readonly [Check, ...Check[]] = [
  check('API server', readServer, judgeServer),
  check('custom resource definitions', readDefinitions, judgeDefinitions),
  check('MIC of aad-pod-identity', ({ list }) => list('pods'), judgeMic),
  check('nodes', ({ list }) => list('nodes'), judgeNodes, 'before'),
  check('agents', readNodesAndAgents, judgeAgents, 'after'),
  check('rights of the agent', readAgentRights, judgeAgentRights, 'after'),
  check('identity owners', readTrusted, judgeOwners, 'after'),
  check('boot guard', readPods('boot-guard'), judgeGuards, 'after'),
  check('status conditions', readPods('conditions'), judgeConditions, 'after'),
  check('nodes of Karpenter', readKarpenter, judgeKarpenter),
  check('admission policies', ({ list }) => list(webhooks), judgePolicies),
];

const pauseMs = 5_000;

async function doctor(given: VerbContext, when: When, waitMs: number): Promise<ExitCode> {
  const { io } = given;
  const said = new Set<string>();
  const once = (say: (text: string) => void) => (text: string) => {
    if (!said.has(text)) say(text);
    said.add(text);
  };
  const context = { ...given, warn: once(given.warn) };
  const tell = once(io.stderr);
  const endMs = io.wallMs() + waitMs;
  for (;;) {
    const checked = await examine(context, when);
    const failing = checked.filter(({ mark }) => mark === 'error');
    if (failing.length === 0 || io.wallMs() >= endMs) return report(context, checked);
    tell(`waiting for ${failing.map(({ title, result }) => `${title}: ${result}`).join('; ')}\n`);
    await io.sleep(pauseMs);
  }
}

async function examine(context: VerbContext, when: When) {
  const { kubectl } = context;
  const lists = new Map<string, Promise<Read<readonly RawObject[]>>>();
  let agents: Promise<Read<readonly AgentView[]>> | undefined;
  const run = async ({ title, run: runCheck }: Check) => {
    const unread: Unread[] = [];
    const open: Look['open'] = (what, why) => {
      const isText = typeof why === 'string';
      unread.push(isText ? { what, why, loses: title } : describeUnread(what, why, title));
    };
    const valueOf = <T>(what: string, read: Read<T>) => {
      if (!read.ok) open(what, read.failure);
      return read.ok ? read.value : undefined;
    };
    const list = async (resource: string) => {
      const listing = lists.get(resource) ?? kubectl.list(resource, undefined);
      lists.set(resource, listing);
      return valueOf(`list ${resource}`, await listing);
    };
    const listAgents = async () =>
      valueOf('list pods of the agents', await (agents ??= readAgents(context)));
    const judged = await runCheck({ ...context, list, agents: listAgents, open });
    if (judged === undefined) return [];
    const { result, findings = [] } = judged;
    const worst = (['error', 'warning'] as const).find((each) => reaches(findings, each));
    const mark = worst ?? (unread.length > 0 ? notChecked : 'ok');
    return [{ title, mark, result, findings: sortFindings(findings), unread }];
  };
  const due = checks.filter((each) => each.when === undefined || each.when === when);
  // Alone and first: without a server there is nothing to read.
  return [await run(serverCheck), ...(await Promise.all(due.map(run)))].flat();
}

function report(context: VerbContext, checked: Awaited<ReturnType<typeof examine>>): ExitCode {
  const findings = sortFindings(checked.flatMap((each) => each.findings));
  const unread = mergeCauses(checked.flatMap((each) => each.unread));
  const shown = checked.map(({ title, mark, result }) => ({ check: title, mark, result }));
  print(context, { kind: 'Diagnosis', checks: shown, findings, unread }, () => {
    const rows = checked.map(({ mark, title, result }) => [mark, title, result]);
    const [head = '', ...lines] = renderTable(['MARK', 'CHECK', 'RESULT'], rows);
    const body = checked.flatMap(({ findings: own }, at) => [
      lines[at] ?? '',
      ...renderFindings(causesOf(own)).map((line) => `  ${line}`),
    ]);
    return [head, ...body, ...renderUnread(unread)];
  });
  return exitOf(context, (limit) => reaches(findings, limit));
}

/** What objects share is told once: their fixes differ in the name only. JSON has each of them. */
function causesOf(findings: readonly Finding[]): readonly Finding[] {
  const most = 10;
  const causeOf = ({ code, severity, fix, object }: Finding) =>
    `${code} ${severity} ${fix.replaceAll(object.replace(/^.*[ /]/, ''), '')}`;
  return [...Map.groupBy(findings, causeOf).values()].flatMap(([first, ...others]) => {
    if (first === undefined) return [];
    const texts = others.map(({ object, text }) =>
      object === first.object ? text : `${object}: ${text}`,
    );
    const more = texts.length > most ? [`${texts.length - most} more: see -o json`] : [];
    return [{ ...first, details: [...first.details, ...texts.slice(0, most), ...more] }];
  });
}

async function readServer({ kubectl }: Look): Promise<string> {
  const run = await kubectl.run(['version', '--output=json']);
  const server = asRecord(parseRecord(run.stdout)?.['serverVersion']);
  if (server === undefined) throw toPluginError(classifyFailure(run), 'reach the API server');
  return stringAt(server, 'gitVersion');
}

function judgeServer(version: string): Judged {
  const [, minor = '28'] = /^v1\.(\d+)/.exec(version) ?? [];
  const old = { object: 'Cluster', text: `The API server is ${version}.` };
  return { result: version, findings: Number(minor) < 28 ? oneFinding('server_old', old) : [] };
}

/** Fields that this version added to each kind; old definitions lack them. */
const newFields: readonly (readonly [plural: string, fields: readonly string[]])[] = [
  [
    'azureidentities',
    ['spec.allowedResources', 'spec.federation', 'spec.notBefore', 'status.conditions'],
  ],
  ['azureidentitybindings', ['spec.serviceAccount', 'status.conditions']],
  ['azurepodidentityexceptions', []],
  ['azureidentitygrants', []],
];

async function readDefinitions({ kubectl, open }: Look) {
  const resource = 'customresourcedefinitions.apiextensions.k8s.io';
  const reads = await Promise.all(
    newFields.map(([plural]) => kubectl.get(resource, '', `${plural}.${group}`)),
  );
  const failed = reads.find((read) => !read.ok && read.failure.kind !== 'not-found');
  if (failed?.ok === false) open(`get ${resource}`, failed.failure);
  return failed === undefined ? reads.map((read) => (read.ok ? read.value : undefined)) : undefined;
}

function judgeDefinitions(definitions: readonly (RawObject | undefined)[]): Judged {
  const findings = newFields.flatMap(([plural, fields], at) => {
    const object = `CustomResourceDefinition ${plural}.${group}`;
    const definition = definitions[at];
    if (definition === undefined) {
      return oneFinding('crd_missing', { object, text: 'It is not in the cluster.' });
    }
    const lacking = fields.filter((field) => !hasField(definition, field));
    const text = `It lacks the fields ${lacking.join(', ')}.`;
    return lacking.length === 0 ? [] : oneFinding('crd_old', { object, text });
  });
  const found = definitions.filter((each) => each !== undefined);
  return { result: `${found.length} of ${newFields.length}`, findings };
}

function hasField(definition: RawObject, path: string): boolean {
  const keys = `schema.openAPIV3Schema.${path.replace(/[^.]+/g, 'properties.$&')}`.split('.');
  return recordsAt(specOf(definition), 'versions').some(
    (version) =>
      keys.reduce((record, key) => asRecord(record?.[key]), asRecord(version)) !== undefined,
  );
}

function judgeMic(pods: readonly RawObject[]): Judged {
  const findings = findMic(pods);
  return { result: findings.length === 0 ? 'not there' : 'runs', findings };
}

function judgeNodes(nodes: readonly RawObject[]): Judged {
  return { result: String(nodes.length), findings: examineAgents(nodes) };
}

async function readNodesAndAgents({ list, agents, agentNamespace }: Look) {
  const [nodes, pods = [], own] = await Promise.all([list('nodes'), list('pods'), agents()]);
  const others = pods.filter((pod) => isLabeled(pod) && namespaceOf(pod) !== agentNamespace);
  // Who may only write pods of a namespace has none on the host network as a rule.
  const elsewhere = others.filter((pod) => specOf(pod)['hostNetwork'] === true).map(viewAgent);
  return own && { nodes, own, elsewhere };
}

type Agents = NonNullable<Awaited<ReturnType<typeof readNodesAndAgents>>>;

function judgeAgents({ nodes, own, elsewhere }: Agents): Judged {
  const ready = own.filter((agent) => agent.isReady && !agent.isOldNmi);
  const where = nodes === undefined ? `nodes ${notChecked}` : `on ${nodes.length} nodes`;
  const result = `${ready.length} ready of ${own.length}, ${where}`;
  return { result, findings: examineAgents(nodes, own, elsewhere) };
}

function judgeOwners(agents: readonly AgentView[]): Judged | undefined {
  const modes = new Set(agents.map(({ config }) => config?.identityOwners ?? 'unknown'));
  const open = [...modes].filter((each) => each !== 'enforce').join(', ');
  if (modes.size === 0) return undefined;
  if (open === '') return { result: 'enforced' };
  const text = `Their mode is ${open}${modes.size > 1 ? ' on some nodes' : ''}.`;
  return {
    result: 'not enforced',
    findings: oneFinding('owners_not_enforced', { object: 'Agents', text }),
  };
}

/** Those that the chart runs beside the agents. */
function readPods(component: string) {
  return async ({ list, agentNamespace }: Look) =>
    (await list('pods'))?.filter(
      (pod) =>
        namespaceOf(pod) === agentNamespace &&
        !hasEnded(pod) &&
        labelsOf(pod).get('app.kubernetes.io/component') === component,
    );
}

/** Where the boot guard is taken away, its pods do so. */
function judgeGuards(pods: readonly RawObject[]): Judged {
  const guards = pods.filter((pod) => beginsWith(pod, 'redirect guard-boot'));
  const advice = 'not by the chart: see "Nodes after a reboot" in docs/install.md';
  return guards.length === 0 ? { result: advice } : judgeParts(guards);
}

function judgeConditions(pods: readonly RawObject[]): Judged {
  const missing = 'not written: the Deployment nmi-conditions has no pod';
  return pods.length === 0 ? { result: missing } : judgeParts(pods);
}

function judgeParts(pods: readonly RawObject[]): Judged {
  const waiting = pods.filter((pod) => conditionOf(pod, 'Ready')?.['status'] !== 'True');
  const findings = waiting.map((pod) => {
    const text = `It is not ready: ${viewAgent(pod).problem}`;
    return createFinding('part_not_ready', { object: `Pod ${titleOf(pod)}`, text });
  });
  return { result: `${pods.length - waiting.length} ready of ${pods.length}`, findings };
}

async function readKarpenter({ list }: Look) {
  const made = (await list('nodes'))?.filter(isOfKarpenter);
  if (made === undefined || made.length === 0) return made && { made, bound: undefined };
  const { identities: ofIdentities, bindings: ofBindings } = identityResources;
  const [identities, bindings, pods] = await Promise.all(
    [ofIdentities, ofBindings, 'pods'].map(list),
  );
  return identities && bindings && pods && { made, bound: { identities, bindings, pods } };
}

type MadeNodes = NonNullable<Awaited<ReturnType<typeof readKarpenter>>>;

function judgeKarpenter({ made, bound }: MadeNodes): Judged | undefined {
  return bound && { result: String(made.length), findings: findUserAssigned(made, bound) };
}

function judgePolicies(all: readonly RawObject[]): Judged {
  const engines = all.map(nameOf).filter((name) => /gatekeeper|kyverno|azure-policy/.test(name));
  const findings = engines.map((name) => {
    const object = `ValidatingWebhookConfiguration ${name}`;
    return createFinding('policy_engine', { object, text: 'It looks at pods.' });
  });
  return { result: engines.join(', ') || 'none known', findings };
}
