/**
 * The agent's cluster state and token cache on a hand-driven clock, for explanations; nothing is
 * fetched.
 */
import { GrantIndex } from '../../src/cache/index/grant-index.ts';
import type { Pod } from '../../src/cache/index/objects.ts';
import { PodIndex } from '../../src/cache/index/pod-index.ts';
import { parseExplainQuery } from '../../src/nmi/explain/question.ts';
import { explain, type ExplainContext } from '../../src/nmi/explain/explain.ts';
import type { Explanation, PodExplanation } from '../../src/nmi/explain/explanation.ts';
import { ThrottledPods } from '../../src/nmi/callers/throttled-pods.ts';
import type { SourceFailure, SourceResult, TokenRequest } from '../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../src/nmi/sources/upstream-identity.ts';
import { TokenBroker } from '../../src/nmi/tokens/broker.ts';
import { NearNames } from '../../src/nmi/grants/near-names.ts';
import { UpstreamResolver } from '../../src/nmi/grants/resolve-upstream.ts';
import { WorkloadIdentities } from '../../src/nmi/grants/workload-identities.ts';
import type { ServiceAccounts } from '../../src/nmi/kube/accounts/service-accounts.ts';
import { IdentitiesInUse } from '../../src/nmi/grants/identities-in-use.ts';
import { createPod } from './cache-objects.ts';
import { createOwners } from './owners.ts';
import { HandClock } from './hand-clock.ts';
import { createToken, hourMs } from './token-fixture.ts';

/** Part of each access token of the fixture, and of no other string. */
export const tokenMark = 'canary-access-token';

export function openExplainFixture({
  strict = false,
  mode = 'iptables',
  letsNodePodsThrough = false,
  /** Of every service account. */
  application = undefined as { clientId: string; tenantId: string } | undefined,
  owners = createOwners('off').owners,
} = {}) {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  const upstreams = new UpstreamResolver((adEndpoint) =>
    adEndpoint === ''
      ? {
          ok: true,
          authority: 'https://login.example',
          audience: 'api://exchange',
          accountAudience: 'api://exchange',
        }
      : { ok: false, problem: 'has a spec.adEndpoint that is not allowed' },
  );
  const account = { kind: 'known', account: application ?? 'missing' } as const;
  const accounts: ServiceAccounts = {
    generation: 0,
    peek: () => account.account,
    peekFresh: () => account,
    onChange: () => () => undefined,
  };
  const workloadIdentities = application && new WorkloadIdentities(accounts, '');
  const state: {
    failure: SourceFailure | undefined;
    isSynced: boolean;
    trusts: boolean;
    rightsProblem: string | undefined;
    lifeMs: number;
    whyUnavailable: string | undefined;
    whyBehind: string | undefined;
    /** By pod UID. */
    clients: Readonly<Record<string, readonly string[]>>;
  } = {
    failure: undefined,
    isSynced: true,
    trusts: true,
    rightsProblem: undefined,
    lifeMs: 24 * hourMs,
    whyUnavailable: undefined,
    whyBehind: undefined,
    clients: {},
  };
  const calls: TokenRequest<UpstreamIdentity>[] = [];
  const fetch = (request: TokenRequest<UpstreamIdentity>): Promise<SourceResult> => {
    const number = calls.push(request);
    const { failure, lifeMs } = state;
    if (failure !== undefined) return Promise.resolve({ ok: false, failure });
    const token = createToken(clock, `${tokenMark}-${number}`, lifeMs);
    return Promise.resolve({ ok: true, token });
  };
  const budget = { maxConcurrent: 4, maxPerSec: 20, maxQueued: 100 };
  const broker = new TokenBroker({
    imds: { source: { fetch }, budget },
    entra: { source: { fetch }, budget },
    demand: new IdentitiesInUse({ pods, grants, owners, upstreams, workloadIdentities }),
    clock,
    random: () => 0.5,
    maxEntries: 100,
    waitMs: 10_500,
    nextImdsFetchId: () => 'fetch',
    observer: {
      onFetch: () => undefined,
      onRefresh: () => undefined,
      onSourceBug: () => undefined,
    },
  });
  const throttled = new ThrottledPods(clock);
  const isSynced = () => state.isSynced;
  const trusts = () => state.trusts;
  const sight: ExplainContext = {
    clusterState: {
      pods,
      grants,
      owners,
      upstreams,
      workloadIdentities,
      nearNames: new NearNames(grants),
      isSynced,
      trusts,
      rightsProblem: () => state.rightsProblem,
      whyBehind: (kind) => state.whyBehind && `${kind ?? 'all'}: ${state.whyBehind}`,
    },
    policy: { strict, graceMs: 60_000, hostNetwork: 'serve' },
    letsNodePodsThrough,
    throttledOf: (uid) => throttled.of(uid),
    broker,
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
    whyUnavailable: () => state.whyUnavailable,
    clientsOf: (podUid) => state.clients[podUid] ?? [],
  };

  /** @param search as on the socket. */
  function ask(search: string): Explanation {
    const parsed = parseExplainQuery(search);
    if (!parsed.ok) throw new Error(parsed.problem);
    return explain(parsed.query, sight, clock.wallMs());
  }

  function askPod(search: string): PodExplanation {
    const explanation = ask(search);
    if (explanation.kind !== 'pod') throw new Error(`no pod for ${search}`);
    return explanation;
  }

  /** A pod at 10.0.0.1 of the default namespace. */
  function addPod(fields: Partial<Pod> = {}): void {
    pods.upsert(createPod({ name: 'p', ips: ['10.0.0.1'], ...fields }));
  }

  return { clock, throttled, pods, grants, broker, state, calls, ask, askPod, addPod };
}

export type ExplainFixture = ReturnType<typeof openExplainFixture>;
