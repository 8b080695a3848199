/** What everything that speaks to a person reports about a situation. */
import { parseRecord, stringAt } from '../../src/base/json-value.ts';
import type { RawObject } from '../../src/kubectl/base/object.ts';
import { viewAgent, defaultConfig } from '../../src/kubectl/cluster/agents.ts';
import { CallerConnection } from '../../src/nmi/callers/caller.ts';
import type { Condition } from '../../src/nmi/conditions/condition.ts';
import { conditionsOfBinding, conditionsOfIdentity } from '../../src/nmi/conditions/evaluate.ts';
import { observing } from '../../src/nmi/conditions/observed.ts';
import { ObservedObjects } from '../../src/nmi/conditions/observed-objects.ts';
import { renderExplanation } from '../../src/nmi/explain/explanation-text.ts';
import { authoritiesOf } from '../../src/nmi/grants/authorities.ts';
import { eventReasonOf } from '../../src/nmi/kube/events/event.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  parsePod,
  type Parse,
} from '../../src/nmi/kube/watch/parse.ts';
import { sourceNameOf, titleOfLeg } from '../../src/nmi/sources/upstream-identity.ts';
import { RefusalEvents } from '../../src/nmi/telemetry/refusal-events.ts';
import { kinds, nowWallMs, play } from '../unit/kubectl/recorded-kubectl.ts';
import { HandClock } from '../support/hand-clock.ts';
import { callerAt } from '../support/request-records.ts';
import { world, type World } from '../world.ts';
import type { Expected, Situation } from './situation.ts';

/** By the names of the kinds for kubectl. */
const resources: Readonly<Record<string, string>> = {
  Pod: 'pods',
  Node: 'nodes',
  ServiceAccount: 'serviceaccounts',
  AzureIdentity: kinds.identities,
  AzureIdentityBinding: kinds.bindings,
  AzurePodIdentityException: kinds.exceptions,
  AzureIdentityGrant: kinds.grants,
  NetworkPolicy: kinds.policies,
  Deployment: kinds.deployments,
  Event: 'events',
  StatefulSet: 'statefulsets.apps',
};

export interface Words {
  /** Status and code, or the token. */
  readonly answer: string;
  readonly upstream: string;
  readonly body: string;
  readonly event: string;
  /** The line of `nmi explain` about the request. */
  readonly request: string;
  /** The first line of `kubectl nmi explain`. */
  readonly verdict: string;
  /** What `kubectl nmi explain` has not checked. */
  readonly notChecked: string;
  /** By the teller. */
  readonly findings: Readonly<Record<Teller, readonly string[]>>;
  /** By the object, of those that exist. */
  readonly conditions: Readonly<Record<string, readonly Condition[]>>;
  /** All of `kubectl nmi explain`. */
  readonly output: string;
}

const everyTeller = 'every teller';
const tellers = ['nmi explain', 'kubectl nmi explain', 'analyze'] as const;
type Teller = (typeof tellers)[number];

export async function wordsOf(situation: Situation): Promise<Words> {
  const agent = openAgent(situation);
  const explained = explainedBy(agent, situation);
  const request = explained.match(/^A request .*$/gm)?.at(-1) ?? '';
  const { answer, body, upstream } = await answerOf(agent, situation);
  const { explain, analyze } = await ofPlugin(situation);
  return {
    answer: request.includes(` gets a ${answer} (`)
      ? request.replace(/.* gets a (.*)\.$/, '$1')
      : answer,
    upstream,
    body,
    request,
    event: eventOf(agent),
    verdict: explain.stdout.split('\n', 1)[0]?.replace(/^pod \S+: /, '') ?? '',
    notChecked:
      /^ {2}Not checked \(.*?\): (.*?)\.(?: A token shows it: .*)?$/m.exec(explain.stdout)?.[1] ??
      '',
    output: `exit code ${explain.code}\n${explain.stdout}${explain.stderr}`,
    findings: {
      'nmi explain': findingsIn(explained),
      'kubectl nmi explain': findingsIn(explain.stdout),
      analyze: findingsIn(analyze.stdout),
    },
    conditions: conditionsOf(agent, situation),
  };
}

/** The agent of the pod's node, with what its watches would take from these objects. */
function openAgent({ objects, args }: Situation): World {
  const parsed = <T>(kind: string, parse: Parse<T>) => parsedOf(objects, kind, parse);
  const config = configOf(args);
  return world({
    clock: new HandClock(nowWallMs),
    mode: redirectOf(args),
    owners: config.identityOwners,
    policy: { strict: config.strictIdentity, hostNetwork: config.hostNetwork },
    authority: authoritiesOf(config),
    pods: parsed('Pod', parsePod),
    identities: parsed('AzureIdentity', parseIdentity),
    bindings: parsed('AzureIdentityBinding', parseBinding),
    exceptions: parsed('AzurePodIdentityException', parseException),
    identityGrants: parsed('AzureIdentityGrant', parseIdentityGrant),
  });
}

function configOf(args: readonly string[]) {
  const container = { name: 'nmi', args };
  const { config } = viewAgent({ spec: { containers: [container] } });
  if (config === undefined) throw new Error(`no agent has the options ${args.join(' ')}`);
  return { ...defaultConfig, ...config };
}

/** Of a node that meets the requirements. */
function redirectOf(args: readonly string[]): string {
  const { redirect } = configOf(args);
  return redirect === 'auto' ? 'ebpf' : redirect;
}

async function answerOf(agent: World, { request, args }: Situation) {
  const pod = agent.pods.byName('shop', 'web');
  const query = new URLSearchParams({
    'api-version': '2018-02-01',
    resource: 'https://vault.azure.net',
    ...request,
  });
  const remoteIp = pod?.ips[0] ?? '';
  const end = { remoteIp, localIp: remoteIp };
  // By its cgroup on the host network, where no address is that of a pod.
  const caller =
    pod?.hostNetwork === true && redirectOf(args) === 'ebpf'
      ? new CallerConnection(end, { kind: 'attested', cgroupId: 1n }, () => pod.cgroupUid)
      : callerAt(remoteIp);
  const pending = agent.reply(query.toString(), caller);
  // It waits for objects that may be on their way.
  agent.clock.advance(1_000);
  const { status, reason, body, retryAfterS } = await pending;
  const [call] = agent.calls;
  if (status !== 200 || call === undefined) {
    const retry = retryAfterS === undefined ? '' : `, Retry-After ${retryAfterS}`;
    const description = stringAt(parseRecord(body), 'error_description');
    return { answer: `${status} ${reason}${retry}`, body: description, upstream: '' };
  }
  const grant = agent.records.at(-1)?.decision?.grant;
  const identity = grant?.kind === 'granted' ? grant.identity : undefined;
  const title =
    identity === undefined ? "the node's own identities" : `AzureIdentity ${identity.name}`;
  return {
    answer: `token of ${title}`,
    body: '',
    upstream: `${sourceNameOf(call.identity)}: ${titleOfLeg(call.identity)}`,
  };
}

/** The Event on the pod: its reason and note. */
function eventOf({ records }: World): string {
  const notes: string[] = [];
  const events = new RefusalEvents({
    record: (_regarding, _kind, draft) => {
      const { reason, note } = draft();
      return notes.push(`${reason}: ${note}`) > 0;
    },
  });
  for (const record of records) events.render(record);
  return notes.join('\n');
}

function explainedBy(agent: World, { request }: Situation): string {
  // `nmi explain` takes no resource id.
  const { msi_res_id: _, ...known } = request;
  return renderExplanation(
    agent.ask(new URLSearchParams({ pod: 'shop/web', ...known }).toString()),
  );
}

async function ofPlugin({ objects, request, hidden: forbidden }: Situation) {
  const byKind = Object.groupBy(objects, ({ kind }) => resources[String(kind)] ?? String(kind));
  const namespaces = [{ kind: 'Namespace', metadata: { name: 'shop' } }];
  const recorded = { objects: { ...byKind, namespaces } as Record<string, RawObject[]>, forbidden };
  return {
    explain: await play(['explain', 'pod', 'web', ...flagsOf(request)], recorded),
    analyze: await play(['analyze'], recorded),
  };
}

export function flagsOf({ client_id: clientId, resource }: Situation['request']) {
  return [
    ...(clientId === undefined ? [] : ['--client-id', clientId]),
    ...(resource === undefined ? [] : ['--resource', resource]),
  ];
}

/** Each without its link, as a file has it. */
export function findingsIn(text: string): readonly string[] {
  const found: string[][] = [];
  for (const line of text.split('\n')) {
    const [, severity = '', title = ''] = /^ *(error|warning|info) +(\S.*: \w+)$/.exec(line) ?? [];
    const [, more = 'see: '] = /^ +(\S.*)$/.exec(line) ?? [];
    if (title !== '') found.push([`${severity} ${title}`]);
    else if (!more.startsWith('see: ')) found.at(-1)?.push(more);
  }
  return found.map((lines) => lines.join('\n  ')).toSorted();
}

function parsedOf<T>(objects: readonly RawObject[], kind: string, parse: Parse<T>): readonly T[] {
  return objects
    .filter((each) => each['kind'] === kind)
    .flatMap((each) => {
      const result = parse(each);
      return result.ok ? [result.value] : [];
    });
}

/** Those that the process for conditions would write. */
function conditionsOf(agent: World, { objects }: Situation): Words['conditions'] {
  const observed = new ObservedObjects();
  const { identities, bindings } = observed;
  identities.replace(parsedOf(objects, 'AzureIdentity', observing(parseIdentity)));
  bindings.replace(parsedOf(objects, 'AzureIdentityBinding', observing(parseBinding)));
  const written: Record<string, readonly Condition[]> = {};
  for (const identity of identities.all())
    written[`AzureIdentity ${identity.namespace}/${identity.name}`] = conditionsOfIdentity(
      identity,
      undefined,
      agent.clusterState,
    );
  for (const binding of bindings.all()) {
    const { namespace, name, parsed } = binding;
    const wanted = parsed.ok ? parsed.value.identityName : '';
    const target = identities.get(namespace, wanted);
    written[`AzureIdentityBinding ${namespace}/${name}`] = conditionsOfBinding(
      binding,
      {
        identity: target?.parsed,
        meant: target === undefined ? observed.nearIdentity(namespace, wanted) : undefined,
        isSurplus: parsed.ok && observed.isSurplus(parsed.value),
      },
      written[`AzureIdentity ${namespace}/${wanted}`]?.find(({ type }) => type === 'Ready'),
    );
  }
  return written;
}

/** The words in the form of a file: what follows from the finding about the pod is left out. */
export function inFileForm(words: Words): Expected {
  const { answer, upstream, body, event, request, verdict, notChecked, findings, conditions } =
    words;
  const [status = '', code = ''] = /^(\d+) (\w+)/.exec(answer)?.slice(1) ?? [];
  const about = findings['nmi explain'].find((each) =>
    each.split('\n', 1)[0]?.endsWith(` Pod shop/web: ${code}`),
  );
  const { text = '', fix = '' } = about === undefined ? {} : partsOf(about);
  const sentences = [`${text} ${fix} (${code})`, `${text} (${code})`, ''];
  const isPending = code.endsWith('_pending');
  const refused = isPending
    ? `NOT READY, gets ${status} ${code}: not yet`
    : `REFUSED, gets ${status} ${code}`;
  const isExplained = request.includes(
    code === '' ? ` gets a ${answer}` : ` gets ${status} ${code}`,
  );
  const unhealthy = formOfConditions(conditions, findings.analyze);
  return {
    answer,
    ...(upstream === '' ? {} : { upstream }),
    ...(sentences.includes(body) ? {} : { body }),
    ...(event === (code === '' ? '' : `${eventReasonOf(code)}: ${text} Fix: ${fix}`)
      ? {}
      : { event }),
    ...(isExplained ? {} : { explained: request }),
    ...(verdict === refused ? {} : { verdict }),
    ...(['', 'assignment of the identity in Azure'].includes(notChecked) ? {} : { notChecked }),
    ...(Object.values(findings).flat().length === 0 ? {} : { findings: groupsOf(findings) }),
    ...(unhealthy === undefined ? {} : { conditions: unhealthy }),
  };
}

function partsOf(finding: string) {
  const [, text = '', ...rest] = finding.split('\n  ');
  const fix = rest.find((each) => each.startsWith('fix: '))?.slice('fix: '.length) ?? '';
  return { text: text.replace(/( It may be on its way\.)? \(HTTP [^)]*\)$/, ''), fix };
}

/** By the tellers that have them. */
function groupsOf(findings: Words['findings']): NonNullable<Expected['findings']> {
  const all = [...new Set(Object.values(findings).flat())].toSorted();
  const groups = Object.groupBy(all, (each) =>
    tellers.filter((teller) => findings[teller].includes(each)).join(', '),
  );
  return Object.fromEntries(
    Object.entries(groups).map(([who, of = []]) => [
      who === tellers.join(', ') ? everyTeller : who,
      of.map((each) => `${each}\n`).join(''),
    ]),
  );
}

/** Those that a file has for this teller. */
export function withTeller(groups: Expected['findings'] = {}, teller: Teller): readonly string[] {
  return Object.entries(groups)
    .filter(([who]) => who === everyTeller || who.split(', ').includes(teller))
    .flatMap(([, text]) => findingsIn(text))
    .toSorted();
}

/** Of objects with a condition that is not true; undefined if there is none. */
export function formOfConditions(conditions: Words['conditions'], findings: readonly string[]) {
  const lines = Object.entries(conditions)
    .filter(([, all]) => all.some(({ status }) => status !== 'True'))
    .map(([object, all]) => [object, inOneLine(all, findings)] as const);
  return lines.length === 0 ? undefined : Object.fromEntries(lines);
}

/** With the message of `Ready`, unless it is what a finding of `analyze` says. */
function inOneLine(conditions: readonly Condition[], findings: readonly string[]): string {
  const ready = conditions.find(({ type }) => type === 'Ready');
  const known = findings.map((each) => {
    const { text, fix } = partsOf(each);
    return `${text} ${fix}`;
  });
  const { reason = '', message = '' } = ready ?? {};
  return [
    ...conditions.map(({ type, status }) => `${type}=${status}`),
    reason,
    ...(known.includes(message) ? [] : [message]),
  ].join(' ');
}
