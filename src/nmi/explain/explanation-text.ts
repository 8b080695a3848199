/** An explanation as lines for a person. Pure; texts of objects are made printable. */
import { renderFindings } from '../diagnosis/finding.ts';
import type {
  Explanation,
  FailureView,
  IdentityView,
  NodeExplanation,
  NodeHealth,
  Outcome,
  PodExplanation,
  RefusalView,
  RequestView,
  TokenView,
  UpstreamView,
} from './explanation.ts';
import type { IdentifiedBy } from '../callers/caller.ts';
import type { PastDecision } from '../server/request-record.ts';
import { durationText } from '../../base/time/duration.ts';
import { printable, renderTable, sentence } from '../../base/printable.ts';
import { describeAges } from '../kube/watch/watch-report.ts';
import { credentialKinds } from '../sources/entra/credentials/kinds.ts';

export function renderExplanation(explanation: Explanation): string {
  return `${renderLines(explanation, renderPod).join('\n')}\n`;
}

/** What only the agent knows, beside what `renderFacts` has. */
export function renderState(explanation: Explanation): readonly string[] {
  return renderLines(explanation, (pod) => [
    ...block('identities', pod.identities.flatMap(renderIdentity)),
    ...renderRequests(pod),
  ]);
}

function renderLines(
  explanation: Explanation,
  renderOne: (pod: PodExplanation) => readonly string[],
): readonly string[] {
  const lines =
    explanation.kind === 'pod'
      ? renderOne(explanation)
      : explanation.kind === 'node'
        ? renderNode(explanation)
        : [sentence(explanation.problem)];
  return [...lines, renderHealth(explanation.node)];
}

function renderPod(explanation: PodExplanation): readonly string[] {
  const { pod } = explanation;
  const state = pod.terminating ? `${pod.phase}, terminating` : pod.phase;
  return [
    // A static pod has no service account.
    `pod ${pod.namespace}/${pod.name}: ${state}, service account ${printable(pod.serviceAccount) || 'none'}`,
    row('uid', pod.uid),
    ...renderFacts(explanation),
    ...renderRequests(explanation),
  ];
}

function renderRequests(explanation: PodExplanation): readonly string[] {
  const {
    identities,
    requests,
    clients,
    identifiedBy = [],
    decisions = [],
    findings,
  } = explanation;
  return [
    ...requests.map((request) => renderRequest(request, identities)),
    ...block('last', decisions.map(renderDecision)),
    ...block('clients', clients.map(printable)),
    ...block(
      'known by',
      identifiedBy.map((by) => identifiedByWords[by]),
    ),
    ...renderFindings(findings).map((line) => `  ${toLine(line)}`),
  ];
}

/** What the pod has: addresses, labels, bindings and identities. Also for the plugin of kubectl. */
export function renderFacts(explanation: PodExplanation): readonly string[] {
  const { pod, label, exception, bindings, identities } = explanation;
  return [
    ...renderAddresses(explanation),
    ...block(
      'labels',
      Object.entries(pod.labels).map(([key, value]) => `${printable(key)}=${printable(value)}`),
    ),
    row(
      'binding',
      label === undefined ? 'no label aadpodidbinding' : `label "${printable(label)}"`,
    ),
    ...block(
      'bindings',
      bindings.map(({ name, identityName, identityExists }) => {
        const missing = identityExists ? '' : ', which does not exist';
        return `${name} → AzureIdentity ${printable(identityName)}${missing}`;
      }),
    ),
    ...(exception === undefined
      ? []
      : [row('exception', `AzurePodIdentityException ${exception}`)]),
    ...block('identities', identities.flatMap(renderIdentity)),
  ];
}

function renderDecision({
  agoMs,
  status,
  reason,
  identity,
  resource,
  cache,
}: PastDecision): string {
  const what = resource === '' ? '' : ` for ${printable(resource)}`;
  const who = identity === '' ? '' : ` by AzureIdentity ${printable(identity)}`;
  const from = cache === 'none' ? '' : `, cache ${cache}`;
  return `${durationText(Math.round(agoMs / 1000) * 1000)} ago: ${status} ${reason}${what}${who}${from}`;
}

const identifiedByWords: Readonly<Record<IdentifiedBy, string>> = {
  cgroup: 'cgroup: the eBPF programs recorded the connection',
  link: 'link: no record (a sandbox, NAT in the pod, or a proxy of another pod); address and network link',
  address: 'address',
};

function renderAddresses({ pod, addresses }: PodExplanation): readonly string[] {
  if (pod.hostNetwork) return [row('address', `${list(pod.ips)}, the node's own`)];
  const hasEnded = pod.phase === 'Succeeded' || pod.phase === 'Failed';
  return block(
    'address',
    addresses.length === 0
      ? [hasEnded ? `none: the pod has ended (${pod.phase})` : 'none yet']
      : addresses.map(({ ip, refusal }) =>
          refusal === undefined ? `${ip} is this pod's` : `${ip}: ${renderRefusal(refusal)}`,
        ),
  );
}

function renderIdentity(identity: IdentityView): readonly string[] {
  const { upstream, refusal, tokens } = identity;
  const facts = [
    ...(identity.type === undefined ? [] : [`type ${identity.type}`]),
    ...named('client id', identity.clientId),
    ...(identity.clientId === '' ? named('resource id', identity.resourceId) : []),
  ];
  const under = [
    ...(upstream === undefined ? [] : [renderUpstream(upstream)]),
    ...(refusal === undefined ? [] : [`gets ${renderRefusal(refusal)}`]),
    ...(refusal === undefined && tokens?.length === 0 ? ['no token in memory'] : []),
    ...(tokens ?? []).map((token) => renderToken(token, upstream?.tenantId ?? '')),
  ];
  const title = [titleOf(identity), ...facts].join(', ');
  return [title, ...under.map((line) => `  ${line}`)];
}

function renderUpstream(upstream: UpstreamView): string {
  const { source, credential, tenantId, auxiliaryTenantIds, authority, notBefore } = upstream;
  const { objectKind = 'Secret' } = credentialKinds.find(({ kind }) => kind === source) ?? {};
  return [
    `from ${source}`,
    ...named(objectKind, credential),
    ...named('tenant', tenantId),
    ...(auxiliaryTenantIds.length === 0 ? [] : [`further tenants ${list(auxiliaryTenantIds)}`]),
    ...named('at', authority),
    ...named('revoked at', notBefore),
  ].join(', ');
}

function titleOf({ kind, name }: IdentityView): string {
  switch (kind) {
    case 'azure-identity':
      return `AzureIdentity ${name}`;
    case 'service-account':
      return `application of service account ${printable(name)}`;
    case 'node':
      return "the node's own identities";
  }
}

function renderToken(view: TokenView, tenantId: string): string {
  const { token, failure } = view;
  // The metadata service of the node knows no tenant.
  const tenant = ['', tenantId].includes(view.tenantId)
    ? ''
    : ` (tenant ${printable(view.tenantId)})`;
  const facts = [
    ...(token === undefined ? ['no token'] : renderTokenState(token)),
    ...(view.isFetching ? ['being fetched'] : []),
    ...(failure === undefined ? [] : [renderFailure(failure)]),
  ];
  return `${printable(view.resource)}${tenant}: ${facts.join(', ')}`;
}

function renderFailure({ reason, description, heldForMs }: FailureView): string {
  const waitMs = Math.ceil(heldForMs / 1000) * 1000;
  const when = waitMs > 0 ? `no retry for ${durationText(waitMs)}` : 'last try';
  const why = description === '' ? '' : `: ${toLine(description)}`;
  return `${when}: ${reason}${why}`;
}

function renderTokenState(token: NonNullable<TokenView['token']>): readonly string[] {
  const { state, ageMs, expiresInMs, refreshInMs, failedRefreshes, isServed } = token;
  const isOver = expiresInMs <= 0;
  return [
    `${state} token`,
    // Absent from an older agent, whose JSON the plugin reads too.
    ...(ageMs === undefined ? [] : [`fetched ${durationText(ageMs)} ago`]),
    isOver ? 'expired' : `expires in ${durationText(expiresInMs)}`,
    ...(refreshInMs === undefined ? [] : [`next refresh in ${durationText(refreshInMs)}`]),
    ...(failedRefreshes === 0 ? [] : [`${failedRefreshes} refreshes failed`]),
    ...(isServed || isOver ? [] : ['fetched again before it is served']),
  ];
}

function renderRequest(
  { selector, resource, outcome }: RequestView,
  identities: readonly IdentityView[],
): string {
  const who = selector === '' ? 'naming no identity' : `with ${printable(selector)}`;
  const what = resource === undefined ? '' : ` for ${printable(resource)}`;
  return `A request ${who}${what} ${renderOutcome(outcome, identities)}`;
}

function renderOutcome(outcome: Outcome, identities: readonly IdentityView[]): string {
  switch (outcome.kind) {
    case 'refused':
      return `gets ${renderRefusal(outcome.refusal)}`;
    case 'unreachable':
      return unreachableWords[outcome.why];
    case 'granted': {
      const identity = identities.find(({ name }) => name === outcome.identity);
      const title = identity === undefined ? printable(outcome.identity) : titleOf(identity);
      const from = outcome.from === undefined ? '' : `; ${fromWords[outcome.from]}`;
      const what = `a token of ${title} (${reasonFor(outcome.by, identities.length)})`;
      if (outcome.until === undefined) return `gets ${what}${from}.`;
      const { at, refusal } = outcome.until;
      return `is granted ${what} until ${at}, then refused: ${renderRefusal(refusal)}`;
    }
  }
}

const unreachableWords = {
  'host-network': "is taken for the node's own: the pod is on the host network.",
  'no-address': 'is not known to be of this pod yet: it has no address.',
  ended: 'is not sent any more: the pod has ended.',
} as const;

const fromWords = {
  memory: 'from memory',
  'memory-or-upstream': 'a new one if it comes in time, else the one in memory',
  upstream: 'not in memory, it is fetched',
} as const;

function reasonFor(by: string, count: number): string {
  if (by === 'only') return 'the only one bound';
  return by === 'default' ? `the oldest of ${count}` : `by ${printable(by)}`;
}

function renderRefusal({ reason, status, description, retryAfterS, isWaitedFor }: RefusalView) {
  const facts = [
    ...(retryAfterS === undefined ? [] : [`Retry-After ${retryAfterS}`]),
    ...(isWaitedFor ? ['after a moment in which that may change'] : []),
  ];
  const more = facts.length === 0 ? '' : ` (${facts.join(', ')})`;
  return `${status} ${reason}${more}: ${toLine(description.replace(` (${reason})`, ''))}`;
}

function renderNode({ pods, omitted }: NodeExplanation): readonly string[] {
  const rows = pods.map(({ namespace, name, ip, label, outcome }) => [
    `${namespace}/${name}`,
    ip,
    // Not a dash where the label is empty.
    label === undefined ? '' : printable(label) || ' ',
    shortOutcome(outcome),
  ]);
  const lines = renderTable(['POD', 'ADDRESS', 'LABEL', 'GETS'], rows);
  return omitted === 0 ? lines : [...lines, `and ${omitted} more pods`];
}

function shortOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'granted':
      return `${printable(outcome.identity)} (${outcome.by})${untilWords(outcome)}`;
    case 'refused':
      return `${outcome.refusal.status} ${outcome.refusal.reason}`;
    case 'unreachable':
      return outcome.why;
  }
}

function untilWords({ until }: Extract<Outcome, { readonly kind: 'granted' }>): string {
  return until === undefined ? '' : ` until ${until.at}, then ${until.refusal.reason}`;
}

function renderHealth({ name, redirect, watches }: NodeHealth): string {
  const { unsynced, silentForMs, failing, podsAskedAs, stale = [] } = watches;
  const heard =
    silentForMs === undefined
      ? 'no API server contact yet'
      : `API server contact ${durationText(silentForMs)} ago`;
  const inStep = failing.length === 0 ? 'watches in step' : 'watches failing';
  const cluster = unsynced.length === 0 ? inStep : `waiting for ${list(unsynced)}`;
  const failures = failing.map(
    ({ resource, reason, forMs }) =>
      `; ${printable(resource)} failing for ${durationText(forMs)} (${toLine(reason)})`,
  );
  const names = { node: ', asked as this node', account: ', asked as the service account' };
  const asked = podsAskedAs === undefined ? '' : names[podsAskedAs];
  const old = stale.length === 0 ? '' : `; not proven current: ${toLine(describeAges(stale))}`;
  const contact = `${cluster}, ${heard}${asked}`;
  return `node ${name}: ${renderRedirect(redirect)}; ${contact}${failures.join('')}${old}`;
}

function renderRedirect({ mode, detail, problem }: NodeHealth['redirect']): string {
  if (problem !== undefined) return `redirect ${mode} NOT IN PLACE (${toLine(problem)})`;
  return mode === 'none' ? 'no redirect' : `redirect ${mode} (${toLine(detail)})`;
}

/** The first line follows the title, the others are below it. */
function block(title: string, lines: readonly string[]): readonly string[] {
  return lines.map((line, index) => row(index === 0 ? title : '', line));
}

export function row(title: string, text: string): string {
  return `  ${title.padEnd(11)} ${text}`;
}

function named(word: string, value: string): readonly string[] {
  return value === '' ? [] : [`${word} ${printable(value)}`];
}

function list(texts: readonly string[]): string {
  return texts.map((text) => printable(text)).join(', ');
}

/** A whole text written by the agent, quotes included, on one line. */
function toLine(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?');
}
