/** `kubectl nmi doctor`: whether a cluster suits the agent, and whether the agent works in it. */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { createFinding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import {
  conditionOf,
  labelsOf,
  namespaceOf,
  recordsAt,
  specOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import { beginsWith, viewAgent } from '../cluster/agents.ts';
import { identityGrants, identityResources } from '../cluster/resources.ts';
import { isLabeled } from '../cluster/trusted-agents.ts';
import { examineAgents, findMic } from '../findings/agents.ts';
import { hasEnded } from '../findings/pods.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import { judgeAgentRights, readAgentRights, readTrusted } from './agent-right.ts';
import { check, examine, report, type Check, type Judged, type Look } from './checks.ts';
import type { VerbContext } from './context.ts';
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

const noGuard = 'not by the chart: see "Nodes after a reboot" in docs/install.md';
const noWriter = 'not written: the Deployment nmi-conditions has no pod';

const [serverCheck, ...checks]: readonly [Check, ...Check[]] = [
  check('API server', readServer, (result) => ({ result })),
  check('custom resource definitions', readDefinitions, judgeDefinitions),
  check('MIC of aad-pod-identity', ({ list }) => list('pods'), judgeMic),
  check('nodes', ({ list }) => list('nodes'), judgeNodes, 'before'),
  check('agents', readNodesAndAgents, judgeAgents, 'after'),
  check('rights of the agent', readAgentRights, judgeAgentRights, 'after'),
  check('identity owners', readOwners, judgeOwners, 'after'),
  // Where the boot guard is taken away, its pods do so.
  check('boot guard', readParts('boot-guard', 'redirect guard-boot'), judgeParts(noGuard), 'after'),
  check('status conditions', readParts('conditions'), judgeParts(noWriter), 'after'),
];

const pauseMs = 5_000;

async function doctor(given: VerbContext, when: Check['when'], waitMs: number): Promise<ExitCode> {
  const { io } = given;
  const said = new Set<string>();
  const once = (say: (text: string) => void) => (text: string) => {
    if (!said.has(text)) say(text);
    said.add(text);
  };
  const context = { ...given, warn: once(given.warn) };
  const tell = once(io.stderr);
  const endMs = io.wallMs() + waitMs;
  const due = checks.filter((each) => each.when === undefined || each.when === when);
  for (;;) {
    const checked = await examine(context, serverCheck, due);
    const failing = checked.filter(({ mark }) => mark === 'error');
    if (failing.length === 0 || io.wallMs() >= endMs) return report(context, checked);
    tell(`waiting for ${failing.map(({ title, result }) => `${title}: ${result}`).join('; ')}\n`);
    await io.sleep(pauseMs);
  }
}

async function readServer({ kubectl }: Look): Promise<string> {
  const run = await kubectl.run(['version', '--output=json']);
  const server = asRecord(parseRecord(run.stdout)?.['serverVersion']);
  if (server === undefined) throw toPluginError(classifyFailure(run), 'reach the API server');
  return stringAt(server, 'gitVersion');
}

const kinds = [...Object.values(identityResources), identityGrants];

async function readDefinitions({ kubectl, open }: Look) {
  const resource = 'customresourcedefinitions.apiextensions.k8s.io';
  const reads = await Promise.all(kinds.map((kind) => kubectl.get(resource, '', kind)));
  const failed = reads.find((read) => !read.ok && read.failure.kind !== 'not-found');
  if (failed?.ok === false) open(`get ${resource}`, failed.failure);
  return failed === undefined ? reads.map((read) => (read.ok ? read.value : undefined)) : undefined;
}

function judgeDefinitions(definitions: readonly (RawObject | undefined)[]): Judged {
  const findings = kinds.flatMap((kind, at) => {
    const object = `CustomResourceDefinition ${kind}`;
    const definition = definitions[at];
    if (definition === undefined) {
      return oneFinding('crd_missing', { object, text: 'It is not in the cluster.' });
    }
    const isOld = kind === identityResources.identities && !hasNewestField(definition);
    const text = `It lacks the field spec.${newestField}.`;
    return isOld ? oneFinding('crd_old', { object, text }) : [];
  });
  const found = definitions.filter((each) => each !== undefined);
  return { result: `${found.length} of ${kinds.length}`, findings };
}

/** The last one that was added to an AzureIdentity; all definitions are applied together. */
const newestField = 'notBefore';

function hasNewestField(definition: RawObject): boolean {
  const keys = ['schema', 'openAPIV3Schema', 'properties', 'spec', 'properties', newestField];
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
  const where = nodes === undefined ? `nodes not checked` : `on ${nodes.length} nodes`;
  const result = `${ready.length} ready of ${own.length}, ${where}`;
  return { result, findings: examineAgents(nodes, own, elsewhere) };
}

async function readOwners(look: Look) {
  const trusted = await readTrusted(look);
  const modes = trusted?.flatMap(({ config }) => config?.identityOwners ?? []);
  if (modes?.length === trusted?.length) return modes;
  look.open('know the mode of the agents', 'this plugin does not know all their options');
  return undefined;
}

function judgeOwners(all: readonly string[]): Judged | undefined {
  const modes = new Set(all);
  const open = [...modes].filter((each) => each !== 'enforce').join(', ');
  if (modes.size === 0) return undefined;
  if (open === '') return { result: 'enforced' };
  const text = `Their mode is ${open}${modes.size > 1 ? ' on some nodes' : ''}.`;
  const findings = oneFinding('owners_not_enforced', { object: 'Agents', text });
  return { result: 'not enforced', findings };
}

/** What the chart runs beside the agents. @param step that its pods begin with. */
function readParts(component: string, step?: string) {
  return async ({ list, agentNamespace }: Look) =>
    (await list('pods'))?.filter(
      (pod) =>
        namespaceOf(pod) === agentNamespace &&
        labelsOf(pod).get('app.kubernetes.io/component') === component &&
        (step === undefined || beginsWith(pod, step)) &&
        !hasEnded(pod),
    );
}

function judgeParts(missing: string) {
  return (pods: readonly RawObject[]): Judged => {
    const waiting = pods.filter((pod) => conditionOf(pod, 'Ready')?.['status'] !== 'True');
    const findings = waiting.map((pod) => {
      const text = `It is not ready: ${viewAgent(pod).problem}`;
      return createFinding('part_not_ready', { object: `Pod ${titleOf(pod)}`, text });
    });
    const ready = `${pods.length - waiting.length} ready of ${pods.length}`;
    return { result: pods.length === 0 ? missing : ready, findings };
  };
}
