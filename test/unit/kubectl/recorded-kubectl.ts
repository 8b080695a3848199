/**
 * A machine with a kubectl that answers from recorded objects, in the words of the real one; the
 * tests on real clusters check those words. Every call is recorded.
 */
import assert from 'node:assert/strict';
import { stringAt } from '../../../src/base/json-value.ts';
import { runPlugin } from '../../../src/kubectl/plugin.ts';
import type { Io, ProgramRun } from '../../../src/kubectl/base/io.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { Kubectl, type PassedFlags } from '../../../src/kubectl/transport/kubectl.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import {
  labelsOf,
  metadataOf,
  nameOf,
  namespaceOf,
  specOf,
  statusOf,
} from '../../../src/kubectl/base/object.ts';

export const nowWallMs = Date.parse('2026-11-27T06:00:00Z');

type Answer = (
  args: readonly string[],
  input: string,
) => ProgramRun | undefined | Promise<ProgramRun | undefined>;

export interface Recorded {
  /** By kubectl's name of the kind. */
  readonly objects?: Readonly<Record<string, readonly RawObject[]>>;
  /** Kinds that the user may not list: at all, in all namespaces at once, or but in `shop`. */
  readonly forbidden?: Readonly<
    Record<string, 'everywhere' | 'all-namespaces' | 'other-namespaces'>
  >;
  /** Kinds that the server does not have. */
  readonly missing?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
  /** Answers calls that are not reads. */
  readonly other?: Answer;
  /** Answers every call. */
  readonly answer?: Answer;
  readonly environment?: Io['environment'];
  readonly currentNamespace?: string;
  /** What kubectl prints at every read. */
  readonly unreachable?: string;
  /** What the API server says against objects that are only shown. */
  readonly refusal?: string;
  readonly onSleep?: (ms: number) => void;
  /** Default: `nowWallMs`. */
  readonly wallMs?: number;
  /** The user has pressed Ctrl-C. */
  readonly isInterrupted?: boolean;
}

export interface Played {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Programs with their arguments, without reads. */
  readonly calls: readonly (readonly string[])[];
  readonly inputs: readonly string[];
  /** Of the calls, those that go on when the user interrupts the verb. */
  readonly outliving: readonly (readonly string[])[];
  /** Calls of kubectl that read objects. */
  readonly reads: number;
}

/** The machine, and a record of what the plugin does on it. */
function openMachine(recorded: Recorded = {}) {
  let [stdout, stderr, wallMs, reads] = ['', '', recorded.wallMs ?? nowWallMs, 0];
  const calls: string[][] = [];
  const inputs: string[] = [];
  const outliving: string[][] = [];
  const io: Io = {
    environment: recorded.environment ?? {},
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    run: async (program, args, { input = '', outlivesStop = false } = {}) => {
      assert.notEqual(program, 'az', 'the plugin prints lines for az, and runs none');
      const answer = recorded.answer === undefined ? read(args, recorded) : undefined;
      if (answer !== undefined) {
        reads += 1;
        return answer;
      }
      calls.push([program, ...args]);
      inputs.push(input);
      if (outlivesStop) outliving.push([program, ...args]);
      const other = await (recorded.answer ?? recorded.other)?.(args, input);
      return other ?? { code: undefined, stdout: '', stderr: '' };
    },
    readText: (path) => Promise.resolve(recorded.files?.[path]),
    listFolder: (path) => {
      const inner = Object.keys(recorded.files ?? {}).filter((each) => each.startsWith(`${path}/`));
      return Promise.resolve(inner.length === 0 ? undefined : inner);
    },
    wallMs: () => wallMs,
    sleep: (ms) => {
      wallMs += ms;
      recorded.onSleep?.(ms);
      return Promise.resolve();
    },
    stop: recorded.isInterrupted === true ? AbortSignal.abort() : new AbortController().signal,
  };
  return { io, calls, inputs, played: () => ({ stdout, stderr, calls, inputs, outliving, reads }) };
}

/** A client over a kubectl with these answers, one after the other; the last one for all that follow. */
export function openKubectl(
  answers: ProgramRun | readonly ProgramRun[] | NonNullable<Recorded['answer']>,
  flags: PassedFlags = {},
  machine: Recorded = {},
) {
  const { io, calls, inputs } = openMachine({
    answer: (args, input) => {
      if (typeof answers === 'function') return answers(args, input);
      return 'code' in answers ? answers : (answers[calls.length - 1] ?? answers.at(-1));
    },
    ...machine,
  });
  return { kubectl: new Kubectl(io, flags), calls, inputs };
}

/** @param words of the command line; a text is split at its blanks. */
export async function play(
  words: string | readonly string[],
  recorded: Recorded = {},
): Promise<Played> {
  const { io, played } = openMachine(recorded);
  const code = await runPlugin(typeof words === 'string' ? words.split(' ') : words, io);
  const { stderr } = played();
  assert.doesNotMatch(stderr, /^error: .*\n[^A-Z]/m, 'the next step follows, as a sentence');
  return { code, ...played() };
}

export function ok(stdout: string): ProgramRun {
  return { code: 0, stdout, stderr: '' };
}

export function failed(stderr: string): ProgramRun {
  return { code: 1, stdout: '', stderr };
}

/** As a server answers to a user who may do everything. */
export const serverAnswers: Answer = ([verb = '', what = '']) => {
  if (what.includes('openid')) return ok('{"issuer":"https://oidc.example/"}');
  if (verb === 'version') return ok('{"serverVersion":{"gitVersion":"v1.34.2"}}');
  return ok({ auth: 'yes\n', patch: 'patched\n', annotate: 'annotated\n' }[verb] ?? '');
};

/** Undefined for a call that is not a read. */
function read(args: readonly string[], recorded: Recorded): ProgramRun | undefined {
  if (args[0] === 'config') {
    const namespace = recorded.currentNamespace ?? 'shop';
    if (args[1] === 'get-contexts') return ok('dev\nprod\n');
    if (!args.includes('--output=json')) return ok(namespace);
    const contexts = [{ name: 'dev', context: { namespace } }];
    return ok(JSON.stringify({ 'current-context': 'dev', contexts }));
  }
  if (args[0] === 'create' && args.includes('--dry-run=server')) {
    return recorded.refusal === undefined ? ok('') : failed(recorded.refusal);
  }
  if (args[0] !== 'get') return undefined;
  if (recorded.unreachable !== undefined) return failed(recorded.unreachable);
  const [, word = ''] = args;
  const at = args.indexOf('--namespace');
  if (word.startsWith('--raw=')) return readRaw(word.slice('--raw='.length), recorded);
  const isAll = args.includes('--all-namespaces');
  const current = recorded.currentNamespace ?? 'shop';
  const scope = isAll ? undefined : at < 0 ? current : (args[at + 1] ?? '');
  const named = args.indexOf('--');
  if (named >= 0) return readOne(word, scope, args.at(-1) ?? '', recorded);
  const resources = word.split(',');
  const missing = resources.find((each) => recorded.missing?.includes(each));
  if (missing !== undefined) {
    const [short = '', ...group] = missing.split('.');
    const where = group.length === 0 ? '' : ` in group "${group.join('.')}"`;
    return failed(`error: the server doesn't have a resource type "${short}"${where}\n`);
  }
  const lists = resources.map((each) => listOf(each, scope, recorded));
  const items = lists.flatMap((each) => (typeof each === 'string' ? [] : each));
  const failures = lists.filter((each) => typeof each === 'string');
  const stdout = JSON.stringify({ kind: 'List', items });
  return { code: failures.length > 0 ? 1 : 0, stdout, stderr: failures.join('') };
}

/** Undefined for a path that is not a list of objects. */
function readRaw(path: string, recorded: Recorded): ProgramRun | undefined {
  const [, group = '', namespace, name = '', search = ''] =
    /^\/(?:api|apis\/([^/]+))\/v1(?:\/namespaces\/([^/]+))?\/([a-z]+)(?:\?(.*))?$/.exec(path) ?? [];
  if (name === '') return undefined;
  const resource = group === '' ? name : `${name}.${group}`;
  if (recorded.missing?.includes(resource) === true) {
    return failed(
      'Error from server (NotFound): the server could not find the requested resource\n',
    );
  }
  const list = listOf(resource, namespace, recorded);
  if (typeof list === 'string') return failed(list);
  const query = new URLSearchParams(search);
  const items = list.filter((each) => isSelected(each, query));
  return ok(JSON.stringify({ kind: 'List', items }));
}

/** The objects, or what kubectl prints if the user may not list them. */
function listOf(
  resource: string,
  scope: string | undefined,
  recorded: Recorded,
): readonly RawObject[] | string {
  const all = recorded.objects?.[resource] ?? (resource === kinds.daemonSets ? [agentSet] : []);
  return (
    refusalOf(resource, scope, 'list', recorded) ??
    all
      .filter((each) => scope === undefined || [scope, ''].includes(namespaceOf(each)))
      .map((each) => ({ ...each, ...typeOf(resource, each) }))
  );
}

function readOne(resource: string, scope: string | undefined, name: string, recorded: Recorded) {
  const refusal = refusalOf(resource, scope, 'get', recorded);
  if (refusal !== undefined) return failed(refusal);
  const list = listOf(resource, scope, { ...recorded, forbidden: {} });
  const found = typeof list === 'string' ? undefined : list.find((each) => nameOf(each) === name);
  if (found !== undefined) return ok(JSON.stringify(found));
  return failed(`Error from server (NotFound): ${resource} "${name}" not found\n`);
}

function refusalOf(
  resource: string,
  scope: string | undefined,
  verb: string,
  { forbidden }: Recorded,
): string | undefined {
  const ban = forbidden?.[resource];
  const isOther = scope === undefined || (ban === 'other-namespaces' && scope !== 'shop');
  if (ban !== 'everywhere' && (ban === undefined || !isOther)) return undefined;
  const [short = '', ...group] = resource.split('.');
  const isOfCluster = scope === undefined || resource === kinds.grants;
  const where = isOfCluster ? 'at the cluster scope' : `in the namespace "${scope}"`;
  return `Error from server (Forbidden): ${resource} is forbidden: User "dev" cannot ${verb} resource "${short}" in API group "${group.join('.')}" ${where}\n`;
}

/** As the server has it, which tests do not always write. */
function typeOf(resource: string, { kind }: RawObject) {
  const [, ...group] = resource.split('.');
  const known: Readonly<Record<string, string>> = { pods: 'Pod', nodes: 'Node' };
  const apiVersion = group.length === 0 ? 'v1' : `${group.join('.')}/v1`;
  return { apiVersion, kind: kind ?? known[resource] };
}

function isSelected(object: RawObject, query: URLSearchParams): boolean {
  const selectors = [...query].flatMap(([what, text]) =>
    text.split(',').map((each) => [what, ...each.split('=')] as const),
  );
  return selectors.every(([what, key = '', value]) => {
    if (what === 'labelSelector') return labelsOf(object).get(key) === value;
    if (key === 'status.podIP') return statusOf(object)['podIP'] === value;
    if (key === 'spec.nodeName') return specOf(object)['nodeName'] === value;
    return true;
  });
}

interface Fields {
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

function metadata(name: string, { namespace = 'shop', labels = {}, annotations = {} }: Fields) {
  return {
    name,
    namespace,
    uid: `uid-${namespace}-${name}`,
    labels,
    annotations,
    creationTimestamp: '2026-11-01T00:00:00Z',
  };
}

export function createPod(
  name: string,
  fields: Fields & {
    readonly spec?: object;
    readonly status?: object;
    readonly ip?: string;
    readonly owner?: object;
  } = {},
): RawObject {
  const { spec = {}, status = {}, ip = '10.244.1.7', owner } = fields;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...metadata(name, fields),
      ...(owner === undefined ? {} : { ownerReferences: [owner] }),
    },
    spec: {
      nodeName: 'node-1',
      serviceAccountName: 'default',
      containers: [{ name: 'main', image: 'x' }],
      ...spec,
    },
    status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], ...status },
  };
}

export const clientA = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
export const clientB = '9a0b7c66-5f0e-4c64-b7f4-6bfb5e1d2a10';
export const tenant = '7e570000-1ab0-4000-8000-000000000001';
export const subscription = '0b1f6471-1bf0-4dda-aec3-cb9272f09590';
export const ordersId = `/subscriptions/${subscription}/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders`;

export function createIdentity(
  name: string,
  spec: object = { type: 0, clientID: clientA },
  fields: Fields = {},
): RawObject {
  return createObject('AzureIdentity', name, spec, fields);
}

export function createBinding(
  name: string,
  spec: object = { azureIdentity: 'orders', selector: 'orders' },
  fields: Fields = {},
): RawObject {
  return createObject('AzureIdentityBinding', name, spec, fields);
}

export function createObject(
  kind: string,
  name: string,
  spec: object,
  fields: Fields = {},
  apiVersion = 'aadpodidentity.k8s.io/v1',
): RawObject {
  return { apiVersion, kind, metadata: metadata(name, fields), spec };
}

export function createAgentPod(
  node: string,
  {
    args = [],
    isReady = true,
    image = 'example/entra-pod-identity:0.1.0',
    name = `nmi-${node}`,
    set = agentSet,
  }: {
    readonly args?: readonly string[];
    readonly isReady?: boolean;
    readonly image?: string;
    readonly name?: string;
    readonly set?: RawObject;
  } = {},
): RawObject {
  return createPod(name, {
    namespace: 'kube-system',
    labels: agentLabels,
    owner: { kind: 'DaemonSet', ...ownerOf(set), controller: true },
    ip: '10.224.0.4',
    spec: { nodeName: node, hostNetwork: true, containers: [{ name: 'nmi', image, args }] },
    status: {
      conditions: [
        {
          type: 'Ready',
          status: isReady ? 'True' : 'False',
          lastTransitionTime: '2026-11-27T05:00:00Z',
          message: isReady ? '' : 'containers with unready status: [nmi]',
        },
      ],
      containerStatuses: [{ name: 'nmi', restartCount: 0, state: { running: {} } }],
    },
  });
}

export const kinds = {
  identities: 'azureidentities.aadpodidentity.k8s.io',
  bindings: 'azureidentitybindings.aadpodidentity.k8s.io',
  exceptions: 'azurepodidentityexceptions.aadpodidentity.k8s.io',
  grants: 'azureidentitygrants.aadpodidentity.k8s.io',
  policies: 'networkpolicies.networking.k8s.io',
  deployments: 'deployments.apps',
  daemonSets: 'daemonsets.apps',
} as const;

const agentLabels = { component: 'nmi', tier: 'node', 'app.kubernetes.io/component': 'nmi' };

export function createAgentSet(name: string): RawObject {
  return createObject(
    'DaemonSet',
    name,
    { template: { metadata: { labels: agentLabels } } },
    { namespace: 'kube-system', labels: agentLabels },
    'apps/v1',
  );
}

/** The DaemonSet of the agents, which the cluster has unless a test says otherwise. */
export const agentSet = createAgentSet('nmi');

function ownerOf(set: RawObject) {
  return { apiVersion: 'apps/v1', name: nameOf(set), uid: stringAt(metadataOf(set), 'uid') };
}

/** As the API server has it while the kubelet ends the pod. */
export function terminating(pod: RawObject): RawObject {
  const deletionTimestamp = '2026-11-27T05:59:50Z';
  return { ...pod, metadata: { ...metadataOf(pod), deletionTimestamp } };
}

export const bound = { labels: { aadpodidbinding: 'orders' } };

/** One correctly bound pod, on a node with an agent. */
export function boundTestBed(
  changes: Readonly<Record<string, readonly RawObject[]>> = {},
): Recorded {
  return {
    objects: {
      pods: [createPod('web', bound), createAgentPod('node-1')],
      [kinds.identities]: [createIdentity('orders')],
      [kinds.bindings]: [createBinding('orders')],
      namespaces: [{ kind: 'Namespace', metadata: { name: 'shop' } }],
      ...changes,
    },
    other: serverAnswers,
  };
}

/** In namespace `shop`: one correctly bound pod, and nothing else. */
export function createSnapshot(changes: Partial<Snapshot> = {}): Snapshot {
  return {
    scope: 'shop',
    pods: [createPod('web', { labels: { aadpodidbinding: 'orders', app: 'web' } })],
    identities: [createIdentity('orders')],
    bindings: [createBinding('orders')],
    exceptions: [],
    workloads: [],
    policies: [],
    accounts: [],
    grants: [],
    agents: [],
    unread: [],
    ...changes,
  };
}

/** Of an agent, as `/api/v1` has it. */
export interface EventFields {
  readonly reason: string;
  readonly note?: string;
  readonly agoMs?: number;
  readonly node?: string;
  readonly related?: RawObject;
  readonly changes?: object;
}

let made = 0;

export function createEvent(
  about: RawObject,
  { reason, note = '', agoMs = 60_000, node = 'node-1', related, changes = {} }: EventFields,
): RawObject {
  const at = new Date(nowWallMs - agoMs).toISOString();
  const referenceOf = (object: RawObject) => ({
    kind: object['kind'],
    namespace: namespaceOf(object),
    name: metadataOf(object)['name'],
    uid: metadataOf(object)['uid'],
  });
  made += 1;
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: {
      name: `event.${made}`,
      namespace: namespaceOf(about),
      creationTimestamp: at.replace(/\.\d+/, ''),
    },
    eventTime: at.replace('Z', '000Z'),
    reportingComponent: 'entra-pod-identity/nmi',
    reportingInstance: node,
    type: reason === 'IdentityAccepted' ? 'Normal' : 'Warning',
    reason,
    message: note,
    involvedObject: referenceOf(about),
    ...(related === undefined ? {} : { related: referenceOf(related) }),
    ...changes,
  };
}
