/** Traces a request without sending it, by the functions that answer requests. Pure. */
import { fullName } from '../../cache/index/object-name.ts';
import { bindingLabelOf } from '../../cache/index/binding-label.ts';
import type { PodGrants } from '../../cache/index/grant-index.ts';
import { hasEnded, type Identity, type Pod } from '../../cache/index/objects.ts';
import type { Attestation } from '../../redirect/redirect.ts';
import type { Answer } from '../base/answers.ts';
import type { Grant, Granted, Refused } from '../grants/grant.ts';
import {
  decideGrant,
  isOfNode,
  refuseUnowned,
  refuseUnusable,
  type GrantState,
} from '../grants/decide-grant.ts';
import { CallerConnection, type IdentifiedBy } from '../callers/caller.ts';
import type { PastDecision } from '../server/request-record.ts';
import type { Throttling } from '../callers/throttled-pods.ts';
import { findingsOfPod, type SourceRefusalFacts } from '../diagnosis/pod.ts';
import type { ExplainQuery } from './question.ts';
import {
  explanationSchema,
  type AgentFacts,
  type BindingView,
  type Explanation,
  type IdentityView,
  type NodeHealth,
  type Outcome,
  type PodExplanation,
  type PodLine,
  type RefusalView,
  type RequestView,
  type TokenView,
  type UpstreamView,
} from './explanation.ts';
import { grantedSinceWallMs } from '../grants/grant-age.ts';
import type { GrantPolicy, IdentitySelector } from '../grants/choose-identity.ts';
import { identify, type Identified } from '../callers/identify.ts';
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { loggableResource } from '../../base/log.ts';
import { timeText } from '../../base/time/duration.ts';
import {
  renderFailure,
  renderRefusal,
  wordsOf,
  wordsOfFailure,
  type Words,
} from '../grants/refusal-text.ts';
import {
  legsOf,
  sourceNameOf,
  titlesBefore,
  type UpstreamIdentity,
} from '../sources/upstream-identity.ts';
import { kindOf, objectOf } from '../sources/entra/credentials/kinds.ts';
import type { EntraIdentity } from '../sources/entra/entra-identity.ts';
import type { SourceFailure } from '../sources/source.ts';
import type { BrokeredStatus, RefusedBySource, TokenBroker } from '../tokens/broker.ts';
import type { SourceRefusal } from '../tokens/source-refusals.ts';
import { identityKey } from '../grants/cache-key.ts';

/** By the uid of a pod. */
export interface SeenRequests {
  /** The clients that it was seen to use. */
  of(podUid: string): readonly string[];
  identifiedBy(podUid: string): readonly IdentifiedBy[];
  decisions(podUid: string): readonly PastDecision[];
}

export interface ExplainContext {
  readonly clusterState: GrantState;
  readonly policy: GrantPolicy;
  readonly letsNodePodsThrough?: boolean;
  /** Undefined for an explanation without an agent. */
  readonly broker: Pick<TokenBroker, 'describe' | 'refusalOf'> | undefined;
  /** Undefined if requests are not observed. */
  readonly seen?: SeenRequests;
  readonly throttledOf?: (podUid: string) => readonly Throttling[];
  readonly health: () => NodeHealth;
  readonly agent?: () => AgentFacts;
  readonly whyUnavailable: () => string | undefined;
}

interface ExplainScope extends ExplainContext {
  readonly resource: string | undefined;
  readonly nowWallMs: number;
}

/** A node has at most 250 pods, unless this limit was raised. */
const maxPods = 1_000;
const maxListed = 100;
/** Callers may send any text as a resource. */
const maxTokens = 20;
const unnamed: IdentitySelector = { kind: 'none' };

export function explain(
  query: ExplainQuery,
  context: ExplainContext,
  nowWallMs: number,
): Explanation {
  const { who, resource } = query;
  const { clusterState } = context;
  const scope: ExplainScope = { ...context, resource, nowWallMs };
  if (who.kind === 'node') return explainNode({ ...scope, resource: undefined });
  const pod = clusterState.pods.byName(who.namespace, who.name);
  if (pod !== undefined) return explainPod(pod, query, scope);
  const node = scope.health().name;
  const why = clusterState.whyBehind?.(clusterState.isSynced() ? 'pods' : undefined);
  const problem = clusterState.isSynced()
    ? `node ${node} has no running pod ${who.namespace}/${who.name}${why === undefined ? '' : `, but ${why}`}`
    : `pod ${who.namespace}/${who.name} is not known yet: ${why ?? 'the agent is still reading the cluster'}`;
  return { ...commonFields('no-pod', scope), problem };
}

function commonFields<K extends Explanation['kind']>(kind: K, { health }: ExplainContext) {
  return { schema: explanationSchema, kind, node: health() } as const;
}

function explainNode(scope: ExplainScope): Explanation {
  const all = [...scope.clusterState.pods.all()].sort(byName);
  const pods = all.slice(0, maxPods).map((pod): PodLine => {
    const authorization = decideAs(pod, unnamed, scope);
    const outcome = classify(pod, authorization, scope);
    const { namespace, name, phase, ips } = pod;
    const label = bindingLabelOf(pod);
    const clients = scope.seen?.of(pod.uid) ?? [];
    return { namespace, name, ip: ips[0] ?? '', phase, label, outcome, clients };
  });
  return {
    ...commonFields('node', scope),
    agent: scope.agent?.(),
    pods,
    omitted: all.length - pods.length,
  };
}

function explainPod(pod: Pod, query: ExplainQuery, scope: ExplainScope): PodExplanation {
  const { clusterState } = scope;
  const grants = clusterState.grants.grantsOf(pod.uid);
  const byDefault = decideAs(pod, unnamed, scope);
  const selectors = query.selector.kind === 'none' ? [unnamed] : [unnamed, query.selector];
  const requests = selectors.map((selector): RequestView => {
    const authorization = selector === unnamed ? byDefault : decideAs(pod, selector, scope);
    return {
      selector: selector.kind === 'none' ? '' : `${selector.kind}=${selector.value}`,
      resource: query.resource,
      outcome: classify(pod, authorization, scope),
    };
  });
  const [first] = requests;
  const outcome = requests.at(-1)?.outcome;
  const { uid } = pod;
  return {
    ...commonFields('pod', scope),
    pod,
    addresses: pod.hostNetwork || hasEnded(pod) ? [] : pod.ips.map((ip) => viewAddress(ip, scope)),
    label: bindingLabelOf(pod),
    exception: grants?.kind === 'exception' ? grants.exception.name : undefined,
    bindings: bindingsOf(grants),
    identities: identitiesOf(pod, grants, byDefault, scope),
    requests,
    clients: scope.seen?.of(uid) ?? [],
    identifiedBy: scope.seen?.identifiedBy(uid) ?? [],
    decisions: scope.seen?.decisions(uid) ?? [],
    findings: findingsOfPod(
      {
        pod,
        refusal: outcome?.kind === 'refused' ? outcome.refusal : undefined,
        oldest: oldestIn(first?.outcome),
        sources: sourceRefusalsOf(pod, grants, byDefault, scope),
        throttled: scope.throttledOf?.(uid) ?? [],
      },
      clusterState,
    ),
  };
}

function oldestIn(outcome: Outcome | undefined): string | undefined {
  return outcome?.kind === 'granted' && outcome.by === 'default' ? outcome.identity : undefined;
}

function decideAs(
  pod: Pod,
  selector: IdentitySelector,
  { clusterState, policy, resource, nowWallMs }: ExplainScope,
): Grant {
  return decideGrant(pod, { resource, selector }, clusterState, policy, nowWallMs);
}

/** The outcome of a request: the caller first, then the grant, then the cache. */
function classify(pod: Pod, authorization: Grant, scope: ExplainScope): Outcome {
  if (hasEnded(pod)) return { kind: 'unreachable', why: 'ended' };
  const obstacle = pod.hostNetwork ? obstacleOnNode(scope) : obstacleAt(pod, scope);
  // A mistake in the objects is worth knowing before the pod has an address.
  const isEarly = obstacle?.kind === 'unreachable' && obstacle.why === 'no-address';
  if (obstacle !== undefined && !(isEarly && authorization.kind === 'refused')) return obstacle;
  if (scope.letsNodePodsThrough === true && isOfNode(authorization)) {
    return { kind: 'unreachable', why: 'host-network' };
  }
  switch (authorization.kind) {
    case 'refused':
      return { kind: 'refused', refusal: viewRefused(authorization) };
    case 'by-object-id':
      throw new TypeError('nobody asks to have an object id explained');
    case 'granted':
      return grant(authorization, scope);
  }
}

/** With eBPF the kernel reports the caller, so a pod on the host network is known by its cgroup. */
function obstacleOnNode(context: ExplainContext): Outcome | undefined {
  if (context.health().redirect.mode !== 'ebpf') {
    return { kind: 'unreachable', why: 'host-network' };
  }
  const isKnown = context.clusterState.isSynced() && context.whyUnavailable() === undefined;
  return isKnown ? undefined : obstacleOf(identifyAt('', context));
}

function obstacleAt(pod: Pod, context: ExplainContext): Outcome | undefined {
  // The metadata service has no IPv6 address, so requests come from an IPv4 address.
  const ip = pod.ips.find((each) => !each.includes(':')) ?? pod.ips[0];
  if (ip === undefined) return { kind: 'unreachable', why: 'no-address' };
  return obstacleOf(identifyAt(ip, context));
}

function obstacleOf(identified: Identified): Outcome | undefined {
  if (identified.kind !== 'refused') return undefined;
  return { kind: 'refused', refusal: viewRefused(identified) };
}

function grant(authorized: Granted, scope: ExplainScope): Outcome {
  const { by } = authorized;
  const { resource } = scope;
  const granted = { kind: 'granted', identity: nameOfGranted(authorized), by } as const;
  if (resource === undefined) return lastingOf({ ...granted, from: undefined }, authorized, scope);
  const upstreams = [authorized.upstream, ...authorized.auxiliary];
  const described = (scope.broker?.describe(upstreams) ?? []).filter(
    (each) => each.request.resource === resource,
  );
  const statuses = upstreams.map((upstream) => {
    const key = identityKey(upstream);
    return described.find(({ request }) => identityKey(request.identity) === key);
  });
  for (const status of statuses) {
    if (status?.failure === undefined || status.cooldownLeftMs === 0 || hasLife(status)) continue;
    return { kind: 'refused', refusal: viewFailure(status.failure, authorized, scope) };
  }
  const servedFrom = statuses.every(hasLife) ? 'memory-or-upstream' : 'upstream';
  const from = statuses.every((status) => status?.token?.isServed) ? 'memory' : servedFrom;
  return lastingOf({ ...granted, from }, authorized, scope);
}

/** Until its cached tokens end, if its source refuses the identity. */
function lastingOf(
  granted: Extract<Outcome, { readonly kind: 'granted' }>,
  authorized: Granted,
  scope: ExplainScope,
): Outcome {
  const refused = refusedAt(authorized, scope);
  if (refused === undefined) return granted;
  const { refusal, leftMs } = refused;
  if (leftMs <= 0) {
    return { kind: 'refused', refusal: viewFailure(refusal.failure, authorized, scope) };
  }
  const at = timeText(scope.nowWallMs + leftMs);
  return { ...granted, until: { at, refusal: viewFailure(lasting(refusal), authorized, scope) } };
}

/** As it is answered in the end: at first, a pod whose federated credential is refused is to retry. */
function lasting({ failure }: SourceRefusal): SourceFailure {
  const { refusals: _refusals, ...rest } = failure;
  return rest;
}

/** What its source refuses it with; in several tenants, where cached tokens end first. */
function refusedAt(
  { upstream, auxiliary }: Granted,
  { broker, resource }: ExplainScope,
): RefusedBySource | undefined {
  return [upstream, ...auxiliary]
    .map((each) => broker?.refusalOf(each, resource))
    .filter((refused) => refused !== undefined)
    .toSorted((one, other) => one.leftMs - other.leftMs)[0];
}

function viewFailure(
  failure: SourceFailure,
  authorized: Granted,
  { nowWallMs, clusterState, policy }: ExplainScope,
): RefusalView {
  const ageMs = nowWallMs - grantedSinceWallMs(authorized, clusterState.grants);
  const answer = renderFailure(failure, authorized, ageMs, policy.graceMs);
  return viewRefusal(answer, wordsOfFailure(failure, authorized), false);
}

/** Of each identity of the pod that its source refuses. */
function sourceRefusalsOf(
  pod: Pod,
  grants: PodGrants | undefined,
  byDefault: Grant,
  scope: ExplainScope,
): readonly SourceRefusalFacts[] {
  const { upstreams } = scope.clusterState;
  const bound = grants?.kind === 'bound' ? grants.identities.slice(0, maxListed) : [];
  const all = bound.flatMap((identity): readonly Granted[] => {
    const choice = upstreams.of(identity, pod);
    if (choice.kind === 'unusable') return [];
    const { upstream, auxiliary } = choice;
    return [{ kind: 'granted', pod, identity, upstream, auxiliary, by: '' }];
  });
  if (bound.length === 0 && byDefault.kind === 'granted') all.push(byDefault);
  return all.flatMap((authorized) => {
    const refused = refusedAt(authorized, scope);
    if (refused === undefined) return [];
    const { sinceWallMs, lastWallMs } = refused.refusal;
    const { identity } = authorized;
    const account = `service account ${pod.namespace}/${pod.serviceAccount}`;
    return {
      object: identity === undefined ? account : `AzureIdentity ${fullName(identity)}`,
      refusal: viewFailure(lasting(refused.refusal), authorized, scope),
      since: timeText(sinceWallMs),
      last: timeText(lastWallMs),
      leftMs: refused.leftMs,
      until: timeText(scope.nowWallMs + refused.leftMs),
    };
  });
}

function hasLife(status: BrokeredStatus | undefined): boolean {
  return status?.token !== undefined && status.token.expiresInMs > 0;
}

function bindingsOf(grants: PodGrants | undefined): readonly BindingView[] {
  if (grants?.kind !== 'bound' && grants?.kind !== 'no-identity') return [];
  const [existing, dangling] =
    grants.kind === 'bound' ? [grants.bindings, grants.danglingBindings] : [[], grants.bindings];
  return [...existing, ...dangling].slice(0, maxListed).map((binding) => {
    const { name, identityName } = binding;
    return { name, identityName, identityExists: existing.includes(binding) };
  });
}

/** Bound identities; without any, the one from an exception or the service account. */
function identitiesOf(
  pod: Pod,
  grants: PodGrants | undefined,
  byDefault: Grant,
  scope: ExplainScope,
): readonly IdentityView[] {
  if (grants?.kind === 'bound') {
    return grants.identities
      .slice(0, maxListed)
      .map((identity) => viewIdentity(identity, pod, scope));
  }
  if (byDefault.kind !== 'granted') return [];
  const { upstream, auxiliary } = byDefault;
  return [
    {
      kind: upstream.kind === 'entra' ? 'service-account' : 'node',
      name: nameOfGranted(byDefault),
      type: undefined,
      clientId: upstream.kind === 'entra' ? upstream.clientId : '',
      resourceId: '',
      upstream: viewUpstream(upstream, auxiliary),
      refusal: undefined,
      tokens: tokensOf([upstream, ...auxiliary], scope),
    },
  ];
}

function viewIdentity(identity: Identity, pod: Pod, scope: ExplainScope): IdentityView {
  const { name, type, clientId, resourceId } = identity;
  const view = { kind: 'azure-identity', name, type, clientId, resourceId } as const;
  const { owners, upstreams } = scope.clusterState;
  const choice = upstreams.of(identity, pod);
  if (choice.kind === 'unusable') {
    const refusal = viewRefused(refuseUnusable(choice, identity, pod));
    return { ...view, upstream: undefined, refusal, tokens: [] };
  }
  const { upstream, auxiliary } = choice;
  const entry = owners.refusing(pod.namespace, upstream);
  const lacking = entry && refuseUnowned({ kind: 'AzureIdentity', name, entry }, pod);
  return {
    ...view,
    upstream: viewUpstream(upstream, auxiliary),
    refusal: lacking && viewRefused(lacking),
    tokens: tokensOf([...legsOf(upstream), ...auxiliary], scope),
  };
}

function viewUpstream(
  upstream: UpstreamIdentity,
  auxiliary: readonly EntraIdentity[],
): UpstreamView {
  const source = sourceNameOf(upstream);
  const sinceWallMs = upstream.kind === 'unnamed' ? undefined : upstream.notBeforeWallMs;
  const notBefore = sinceWallMs === undefined ? '' : new Date(sinceWallMs).toISOString();
  if (upstream.kind !== 'entra') {
    const none = { authority: '', tenantId: '', auxiliaryTenantIds: [], credential: '' };
    return { source, ...none, notBefore };
  }
  const { authority, tenantId, credential } = upstream;
  const object = objectOf(credential);
  return {
    source,
    authority: kindOf(credential).isExchangedByCluster ? '' : authority,
    tenantId,
    auxiliaryTenantIds: auxiliary.map((each) => each.tenantId),
    credential: object === undefined ? titlesBefore(upstream).join(', ') : fullName(object),
    notBefore,
  };
}

function tokensOf(
  upstreams: readonly UpstreamIdentity[],
  { broker, resource }: ExplainScope,
): readonly TokenView[] | undefined {
  return broker
    ?.describe(upstreams)
    .filter(({ request }) => resource === undefined || request.resource === resource)
    .slice(0, maxTokens)
    .map(viewToken);
}

/** An unusual resource is not shown: a pod may have sent any text, even a token of its own. */
function viewToken(status: BrokeredStatus): TokenView {
  const { request, token, isFetching, failure, cooldownLeftMs: heldForMs } = status;
  const { identity } = request;
  const resource = loggableResource(request.resource);
  const description = resource === request.resource ? failure?.description : '';
  return {
    resource,
    tenantId: identity.kind === 'entra' ? identity.tenantId : '',
    token,
    isFetching,
    failure: failure && { reason: failure.reason, description: description ?? '', heldForMs },
  };
}

function viewAddress(ip: string, context: ExplainContext) {
  const identified = identifyAt(ip, context);
  return { ip, refusal: identified.kind === 'pod' ? undefined : viewRefused(identified) };
}

/** The caller that a new connection from this address would be identified as. */
function identifyAt(ip: string, { clusterState, whyUnavailable }: ExplainContext): Identified {
  const why = whyUnavailable();
  const attestation: Attestation =
    why === undefined ? { kind: 'by-address' } : { kind: 'unavailable', why };
  return identify(new CallerConnection({ remoteIp: ip }, attestation), clusterState);
}

function viewRefused(refused: Refused): RefusalView {
  return viewRefusal(renderRefusal(refused), wordsOf(refused), refused.isPending);
}

function viewRefusal(answer: Answer, words: Words, isWaitedFor: boolean): RefusalView {
  const { reason, status, retryAfterS } = answer;
  if (reason === 'ok') throw new TypeError('a refusal is not ok');
  const body = parseRecord(answer.body);
  const [error, description] = [stringAt(body, 'error'), stringAt(body, 'error_description')];
  return { reason, status, error, description, ...words, retryAfterS, isWaitedFor };
}

function nameOfGranted({ pod, identity, upstream }: Granted): string {
  if (identity !== undefined) return identity.name;
  return upstream.kind === 'entra' ? pod.serviceAccount : 'node';
}

function byName(a: Pod, b: Pod): number {
  const keyOf = ({ namespace, name }: Pod) => `${namespace} ${name}`;
  // No mutation: no two pods have the same namespace and name.
  return keyOf(a) < keyOf(b) ? -1 : 1;
}
