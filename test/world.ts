/**
 * One node as the agent sees it, wired once: objects, clock, indexes, upstreams, broker, token
 * endpoint, fast path, explanation and request records. A test gives literals of the fields that it
 * checks, changes them later by `put` or through the same indexes, and asks.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { GrantIndex } from '../src/cache/index/grant-index.ts';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../src/cache/index/objects.ts';
import { OwnerIndex } from '../src/cache/index/owner-index.ts';
import { PodIndex } from '../src/cache/index/pod-index.ts';
import type { CallerConnection, IdentifiedBy } from '../src/nmi/callers/caller.ts';
import { ThrottledPods } from '../src/nmi/callers/throttled-pods.ts';
import { explain, type ExplainContext } from '../src/nmi/explain/explain.ts';
import type { Explanation, PodExplanation } from '../src/nmi/explain/explanation.ts';
import { parseExplainQuery } from '../src/nmi/explain/question.ts';
import type { GrantPolicy } from '../src/nmi/grants/choose-identity.ts';
import { decideGrant, type GrantQuery, type GrantState } from '../src/nmi/grants/decide-grant.ts';
import type { Grant } from '../src/nmi/grants/grant.ts';
import { IdentitiesInUse } from '../src/nmi/grants/identities-in-use.ts';
import { IdentityOwners, type OwnersMode } from '../src/nmi/grants/identity-owners.ts';
import { NearNames } from '../src/nmi/grants/near-names.ts';
import { UpstreamResolver, type ResolveAuthority } from '../src/nmi/grants/resolve-upstream.ts';
import { ResourceUses } from '../src/nmi/grants/resource-uses.ts';
import { WorkloadIdentities } from '../src/nmi/grants/workload-identities.ts';
import type { ServiceAccounts } from '../src/nmi/kube/accounts/service-accounts.ts';
import { CallerLimits } from '../src/nmi/server/caller-limits.ts';
import {
  DecisionCache,
  type Admit,
  type GrantedDecision,
} from '../src/nmi/server/decision-cache.ts';
import { TokenFastPath } from '../src/nmi/server/fast-path/fast-path.ts';
import { HostTokenEndpoint } from '../src/nmi/server/host-token.ts';
import type { Listener, ListenerOptions } from '../src/nmi/server/listener.ts';
import { HttpExchange } from '../src/nmi/server/request.ts';
import { recordOf, type Hit, type RequestRecord } from '../src/nmi/server/request-record.ts';
import { parseRoute } from '../src/nmi/server/route.ts';
import { TokenEndpoint, type TokenAnswer } from '../src/nmi/server/token-endpoint.ts';
import type {
  MayRetry,
  SourceFailure,
  SourceResult,
  TokenRequest,
} from '../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../src/nmi/sources/upstream-identity.ts';
import { Waiters } from '../src/nmi/state/waiters.ts';
import { TokenBroker, type TokenBrokerOptions } from '../src/nmi/tokens/broker.ts';
import { openBareListener } from './support/bare-listener.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
  createPod,
} from './support/cache-objects.ts';
import { HandClock } from './support/hand-clock.ts';
import { callerAt } from './support/request-records.ts';
import { createToken, hourMs, longLived } from './support/token-fixture.ts';

/** Part of each access token of a world, and of no other string. */
export const tokenMark = 'canary-access-token';
export const tokenPath = '/metadata/identity/oauth2/token';

type EndpointBroker = Pick<TokenBroker, 'peek' | 'get' | 'renew' | 'replace' | 'objectIdOf'>;

/** Objects are literals of the fields that a test checks; the others have unremarkable values. */
export interface WorldObjects {
  readonly pods?: readonly Partial<Pod>[];
  readonly identities?: readonly Partial<Identity>[];
  readonly bindings?: readonly Partial<Binding>[];
  readonly exceptions?: readonly Partial<Exception>[];
  readonly identityGrants?: readonly Partial<IdentityGrant>[];
}

export interface WorldGiven extends WorldObjects {
  readonly clock?: HandClock;
  /** Default `off`: no identity needs a grant. */
  readonly owners?: OwnersMode;
  readonly policy?: Partial<GrantPolicy>;
  readonly authority?: ResolveAuthority;
  /** Turns workload identity on. */
  readonly accounts?: ServiceAccounts;
  readonly accountsTenant?: string;
  readonly broker?: Partial<Pick<TokenBrokerOptions, 'maxEntries' | 'random' | 'waitMs'>>;
  readonly budget?: Partial<TokenBrokerOptions['imds']['budget']>;
  /** Replaces the broker of the endpoint: each token is in memory, and no test should fetch one. */
  readonly tokens?: Partial<EndpointBroker>;
  readonly mode?: string;
  readonly letsNodePodsThrough?: boolean;
}

const publicAuthority: ResolveAuthority = (adEndpoint) =>
  adEndpoint === ''
    ? {
        ok: true,
        authority: 'https://login.example',
        audience: 'api://exchange',
        accountAudience: 'api://exchange',
      }
    : { ok: false, problem: 'has a spec.adEndpoint that is not allowed' };

/** A request of `caller` as node:http hands it over. */
export function exchangeOf(
  caller: CallerConnection,
  target: string,
  startedAtMs = 0,
): HttpExchange {
  const request = { method: 'GET', url: target, rawHeaders: ['Metadata', 'true'] };
  const response = { destroyed: false, closed: false } as ServerResponse;
  return new HttpExchange(request as IncomingMessage, response, caller, startedAtMs, 'id');
}

export type World = ReturnType<typeof world>;
type Cluster = ReturnType<typeof openCluster>;

export function world(given: WorldGiven = {}) {
  const { clock = new HandClock() } = given;
  const cluster = openCluster(given, clock);
  const sources = openSources(given, clock, cluster.demand);
  const endpoint = openEndpoint(given, cluster, sources.broker);
  return {
    ...cluster,
    ...sources,
    ...endpoint,
    ...openExplanation(given, cluster, sources.broker),
  };
}

function openCluster(given: WorldGiven, clock: HandClock) {
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  const ownerIndex = new OwnerIndex();
  const owners = new IdentityOwners(ownerIndex, given.owners ?? 'off');
  const upstreams = new UpstreamResolver(given.authority ?? publicAuthority, clock);
  const workloadIdentities =
    given.accounts && new WorkloadIdentities(given.accounts, given.accountsTenant ?? '');
  /** What the watches report; a test changes it. */
  const state = {
    isSynced: true,
    trusts: true,
    rightsProblem: undefined as string | undefined,
    whyBehind: undefined as string | undefined,
  };
  const clusterState = {
    pods,
    grants,
    owners,
    upstreams,
    workloadIdentities,
    nearNames: new NearNames(grants),
    isSynced: () => state.isSynced,
    trusts: (by: IdentifiedBy) => by === 'cgroup' || state.trusts,
    rightsProblem: () => state.rightsProblem,
    whyBehind: (kind) => state.whyBehind && `${kind ?? 'all'}: ${state.whyBehind}`,
  } satisfies GrantState;
  const policy: GrantPolicy = {
    strict: false,
    graceMs: 60_000,
    hostNetwork: 'serve',
    ...given.policy,
  };
  const demand = new IdentitiesInUse({ pods, grants, owners, upstreams, workloadIdentities });
  /** Creates or replaces these objects, with the defaults of the others. */
  const put = (objects: WorldObjects): void => {
    for (const each of objects.identities ?? []) grants.identities.upsert(createIdentity(each));
    for (const each of objects.bindings ?? []) grants.bindings.upsert(createBinding(each));
    for (const each of objects.exceptions ?? []) grants.exceptions.upsert(createException(each));
    for (const each of objects.identityGrants ?? [])
      ownerIndex.grants.upsert(createIdentityGrant(each));
    for (const each of objects.pods ?? []) pods.upsert(createPod(each));
  };
  put(given);
  return {
    ...clusterState,
    clock,
    ownerIndex,
    state,
    clusterState,
    policy,
    demand,
    put,
    /** The decision about a pod of this name. */
    decide(name = 'pod', query: Partial<GrantQuery> = {}, namespace = 'default'): Grant {
      const pod = pods.byName(namespace, name);
      if (pod === undefined) throw new Error(`no pod ${namespace}/${name}`);
      const asked = { selector: { kind: 'none' }, resource: undefined, ...query } as const;
      return decideGrant(pod, asked, clusterState, policy, clock.wallMs());
    },
  };
}

/** Both sources, which return what the test sets, and the broker that asks them. */
function openSources(given: WorldGiven, clock: HandClock, demand: IdentitiesInUse) {
  const upstream = {
    lifeMs: 24 * hourMs,
    failure: undefined as SourceFailure | undefined,
    error: undefined as Error | undefined,
    /** An authority without a server. */
    hanging: undefined as string | undefined,
    isNodeHanging: false,
    /** The failure of this request, where `failure` is too coarse. */
    failureOf: (_identity: UpstreamIdentity): SourceFailure | undefined => undefined,
  };
  const calls: TokenRequest<UpstreamIdentity>[] = [];
  const retries: MayRetry[] = [];
  const fetches: (readonly [UpstreamIdentity, boolean, number])[] = [];
  const refreshes: string[] = [];
  const reported: string[] = [];
  const sourceBugs: unknown[] = [];
  const fetch = (
    request: TokenRequest<UpstreamIdentity>,
    mayRetry: MayRetry,
  ): Promise<SourceResult> => {
    const number = calls.push(request);
    retries.push(mayRetry);
    const { identity } = request;
    const { error, hanging, isNodeHanging, lifeMs } = upstream;
    if (identity.kind === 'entra' ? identity.authority === hanging : isNodeHanging) {
      return new Promise(() => undefined);
    }
    if (error !== undefined) return Promise.reject(error);
    const failure = upstream.failure ?? upstream.failureOf(identity);
    if (failure !== undefined) return Promise.resolve({ ok: false, failure });
    const claims = Buffer.from(JSON.stringify({ oid: 'OBJECT-ID' })).toString('base64url');
    const token = createToken(clock, `${tokenMark}.${claims}.${number}`, lifeMs);
    return Promise.resolve({ ok: true, token });
  };
  const budget = { maxConcurrent: 4, maxPerSec: 20, maxQueued: 100, ...given.budget };
  const broker = new TokenBroker({
    breakMs: 0,
    imds: { source: { fetch }, budget },
    entra: { source: { fetch }, budget },
    demand,
    clock,
    random: () => 0.5,
    maxEntries: 100,
    waitMs: 10_500,
    nextImdsFetchId: () => `fetch ${calls.length + 1}`,
    observer: {
      onFetch: (identity, { ok }, durationMs) => fetches.push([identity, ok, durationMs]),
      onRefused: ({ name }, { failure }, leftMs) =>
        reported.push(
          `${name} ${failure.reason}, ${Math.round((leftMs() ?? NaN) / hourMs)} h left`,
        ),
      onAccepted: ({ name }) => reported.push(`${name} accepted`),
      onRefresh: (outcome) => refreshes.push(outcome),
      onSourceBug: (error) => sourceBugs.push(error),
    },
    ...given.broker,
  });
  return { upstream, calls, retries, fetches, refreshes, reported, sourceBugs, broker };
}

/** The request path behind the listener: decisions, both endpoints, the fast path, the records. */
function openEndpoint(
  { tokens: canned }: WorldGiven,
  { clock, clusterState, policy, grants, owners }: Cluster,
  real: TokenBroker,
) {
  const unexpected = () => Promise.reject(new TypeError('no fetch is expected'));
  const broker: EndpointBroker =
    canned === undefined
      ? real
      : {
          peek: () => longLived,
          get: unexpected,
          renew: unexpected,
          replace: unexpected,
          objectIdOf: () => undefined,
          ...canned,
        };
  const uses = new ResourceUses(clock);
  const limitsExceeded: string[] = [];
  const admit: Admit = (grant, resource) =>
    uses.admit(grant, resource, (limitKey) => limitsExceeded.push(limitKey));
  const decisions = new DecisionCache({ clusterState, policy, admit, clock });
  const waiters = new Waiters({ clock, maxWaiters: 10 });
  grants.onChange(() => waiters.wake());
  owners.onChange(() => waiters.wake());
  const tokens = new TokenEndpoint({
    clusterState,
    decisions,
    policy,
    broker,
    objectWait: {
      clock,
      waiters,
      limits: new CallerLimits({ fetches: 16, waiting: 16, pendingObjects: 16 }),
      maxWaitMs: 1_000,
    },
    clock,
  });
  const hostTokens = new HostTokenEndpoint({
    clusterState,
    policy,
    admit,
    clock,
    endpoint: tokens,
  });
  const hits: GrantedDecision[] = [];
  const records: RequestRecord[] = [];
  const bugs: unknown[] = [];
  const fastPath = new TokenFastPath({
    decisions,
    broker,
    clock,
    observer: { onHit: ({ decision }: Hit) => void hits.push(decision) },
    turns: {
      run: (_caller, work) => {
        work();
        return true;
      },
    },
    onBug: (error) => bugs.push(error),
  });
  /** The answer, and the record that telemetry gets. At once if nothing has to be waited for. */
  const handle = (exchange: HttpExchange): TokenAnswer | Promise<TokenAnswer> => {
    const done = (answer: TokenAnswer): TokenAnswer => {
      const caller = exchange.caller.resolve(clusterState.pods);
      const pod = caller.kind === 'pod' ? caller.pod : undefined;
      const route = parseRoute(exchange.target);
      records.push(recordOf(exchange, route, answer, pod, clock.monotonicMs()));
      return answer;
    };
    const answer = tokens.handle(exchange);
    return answer instanceof Promise ? answer.then(done) : done(answer);
  };
  return {
    decisions,
    admit,
    limitsExceeded,
    waiters,
    tokens,
    hostTokens,
    fastPath,
    hits,
    records,
    bugs,
    handle,
    /** Without a socket. */
    reply: (query: string, from: string | CallerConnection = '10.0.0.1') => {
      const caller = typeof from === 'string' ? callerAt(from) : from;
      return handle(exchangeOf(caller, `${tokenPath}?${query}`, clock.monotonicMs()));
    },
    /** The same on loopback; a caller is a pod by its local address. */
    listen: (over: Partial<ListenerOptions> = {}): Promise<Listener> =>
      openBareListener({ clock, fastPath, handle, ...over }),
  };
}

function openExplanation(
  { mode = 'iptables', letsNodePodsThrough = false }: WorldGiven,
  { clock, clusterState, policy }: Cluster,
  broker: TokenBroker,
) {
  const throttled = new ThrottledPods(clock);
  const agent = {
    whyUnavailable: undefined as string | undefined,
    clients: {} as Readonly<Record<string, readonly string[]>>,
  };
  const context: ExplainContext = {
    clusterState,
    policy,
    letsNodePodsThrough,
    broker,
    throttledOf: (uid) => throttled.of(uid),
    seen: {
      of: (uid) => agent.clients[uid] ?? [],
      identifiedBy: () => [],
      decisions: () => [],
    },
    health: () => ({
      name: 'node-1',
      redirect: { mode, detail: 'as wanted', problem: undefined },
      watches: { unsynced: [], silentForMs: 1_000, failing: [] },
    }),
    agent: () => ({
      version: '1.2.3',
      commit: 'abc',
      nodeVersion: 'v26.10.0',
      startedAt: '2026-11-27T06:00:00.000Z',
      unmetConditions: [],
      flags: { redirect: mode },
    }),
    whyUnavailable: () => agent.whyUnavailable,
  };
  /** @param search as on the socket of `nmi explain`. */
  const ask = (search: string): Explanation => {
    const parsed = parseExplainQuery(search);
    if (!parsed.ok) throw new Error(parsed.problem);
    return explain(parsed.query, context, clock.wallMs());
  };
  const askPod = (search = 'pod=default/pod'): PodExplanation => {
    const explanation = ask(search);
    if (explanation.kind !== 'pod') throw new Error(`no pod for ${search}`);
    return explanation;
  };
  return { throttled, agent, context, ask, askPod };
}
