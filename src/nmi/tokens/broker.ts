/**
 * Tokens for authorized requests: the cache in front of the sources, kept in sync with what the
 * pods of this node may have, and the object ids read from tokens. Independent of HTTP and pods.
 */
import { createHash, randomUUID } from 'node:crypto';
import { fullName, type ObjectName } from '../../cache/index/object-name.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { Party } from '../../base/fair-queue.ts';
import { RateLimiter, type RateLimiterOptions } from '../../base/rate-limiter.ts';
import {
  TokenCache,
  type Cached,
  type CacheOutcome,
  type KeyStatus,
  type RefreshOutcome,
} from '../../cache/token/cache.ts';
import { samplesBy, type Part, type Sample } from '../base/part.ts';
import { pause } from '../../base/time/deadline.ts';
import { debounce, type Debounced } from '../../base/time/debounce.ts';
import type { RenderedToken, Token } from '../../cache/token/token.ts';
import { objectIdOf } from '../sources/token-fields.ts';
import { assertionOf, secretOf } from '../sources/entra/credentials/kinds.ts';
import type { EntraIdentity } from '../sources/entra/entra-identity.ts';
import {
  failed,
  type FailureReason,
  type MayRetry,
  type NodeIdentity,
  type SourceFailure,
  type SourceResult,
  type TokenRequest,
  type TokenSource,
} from '../sources/source.ts';
import { legsOf, sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import { countRefusal } from './federation-refusals.ts';
import { failureOfLeg, refusalOfLeg } from './leg-failure.ts';
import { isReported, SourceRefusals, type SourceRefusal } from './source-refusals.ts';
import { refusedIdentities, soonestExpiries, type RefusedIdentity } from './token-samples.ts';
import { identityKey, tokenKey } from '../grants/cache-key.ts';
import type { IdentitiesInUse, IdentityOwner } from '../grants/identities-in-use.ts';

export type CachedToken = Cached<SourceFailure>;

/** What an identity in use was last refused with, and how long its cached tokens last. */
export interface RefusedBySource {
  readonly refusal: SourceRefusal;
  /** Milliseconds until the first of them expires; 0 without any. */
  readonly leftMs: number;
}

/** State of the token of an identity for a resource, and the failure as returned to a caller. */
export type BrokeredStatus = KeyStatus<BrokerRequest, SourceFailure>;

export interface UpstreamObserver {
  /** @param owners of the identity; none for one that only excepted pods use. */
  onFetch(
    identity: UpstreamIdentity,
    result: SourceResult,
    durationMs: number,
    owners: readonly IdentityOwner[],
  ): void;
  /** @param leftMs how long cached tokens last, at the time of the call; undefined once no pod may use them. */
  onRefused?(owner: IdentityOwner, refusal: SourceRefusal, leftMs: () => number | undefined): void;
  /** Nothing that the owner needs is refused any more. */
  onAccepted?(owner: IdentityOwner): void;
  /** A background refresh was due. */
  onRefresh(outcome: RefreshOutcome): void;
  /** The source threw, which it must not. */
  onSourceBug(error: unknown): void;
}

/** Limits of the requests to one upstream. */
export type UpstreamBudget = Omit<RateLimiterOptions, 'clock'>;

export interface Upstream<I extends UpstreamIdentity> {
  readonly source: TokenSource<I>;
  readonly budget: UpstreamBudget;
}

export interface TokenBrokerOptions {
  readonly imds: Upstream<NodeIdentity>;
  readonly entra: Upstream<EntraIdentity>;
  readonly demand: Pick<
    IdentitiesInUse,
    'isGranted' | 'isOwner' | 'ownersOf' | 'hasExcepted' | 'onChange'
  >;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly maxEntries: number;
  /** The longest wait of one request; somewhat longer than a fetch takes at most. */
  readonly waitMs: number;
  /** A shorter break of an upstream is not told while cached tokens serve. */
  readonly breakMs: number;
  readonly observer: UpstreamObserver;
  /** A new GUID for a fetch from IMDS, by which the agent recognizes its own requests. */
  readonly nextImdsFetchId: () => string;
}

export interface BrokerRequest {
  readonly key: string;
  readonly identity: UpstreamIdentity;
  readonly resource: string;
  /** The pod that requests it. */
  readonly party: Party;
  /** No pod was bound to the identity at the request: an excepted pod named it. */
  readonly isExcepted: boolean;
}

/**
 * No SDK caches a token with less than five minutes left, so one is returned only if there is no
 * better.
 */
const minLifeMs = 5 * 60_000;
/**
 * Credential chains wait about a second for a source; a valid token must not arrive later than
 * that.
 */
const waitWithTokenMs = 1_000;
/** Credential chains wait about as long for a source. */
const maxRetryMs = 1_000;
const renewPauseMs = 10_000;
const maxRenewing = 1_000;
/** A pod requests a handful of resources; one that invents them evicts only tokens of its identity. */
const maxPerIdentity = 200;
const usedWithinMs = 3 * 3_600_000;
/** Requests that wait for fetches: some kilobytes each, with their connections. */
const maxWaiters = 5_000;

/** Reasons that may be answered with `Retry-After`. */
const mayPass: ReadonlySet<FailureReason> = new Set([
  'upstream_throttled',
  'upstream_down',
  'credential_missing',
  'federation_refused',
  'federation_pending',
]);

/** Outcomes after which no fetch for this caller is still pending. */
const isOver: ReadonlySet<CacheOutcome> = new Set(['hit', 'negative', 'coalesced']);

const failures = {
  overloaded: {
    reason: 'upstream_throttled',
    description: 'Too many token fetches of this node wait for their turn. Retry later.',
    retryAfterS: 5,
    // No mutation: a millisecond is as good as none.
    cooldownMs: 0,
  },
  late: {
    reason: 'upstream_down',
    description: 'no token came in time',
    retryAfterS: 2,
    cooldownMs: 0,
  },
  expired: {
    reason: 'upstream_down',
    description: 'the token that came has expired by the clock of this node',
    cooldownMs: 1_000,
  },
} as const satisfies Record<string, SourceFailure>;

export class TokenBroker implements Part, Disposable {
  readonly #options: TokenBrokerOptions;
  readonly #imdsLimiter: RateLimiter;
  /**
   * By authority and kinds of credentials; there are few. Otherwise an authority that does not
   * answer, or a credential that is slow to get, would occupy the slots of all others.
   */
  readonly #entraLimiters = new Map<string, RateLimiter>();
  /** Keys to fetch next time without the cache of the upstream. */
  readonly #renewing = new Set<string>();
  /** Tokens of such fetches. */
  readonly #made = new WeakSet<Token>();
  readonly #cache: TokenCache<BrokerRequest, SourceFailure>;
  /** By identity key; as many as identities are in use. */
  readonly #objectIds = new Map<
    string,
    { readonly identity: UpstreamIdentity; readonly objectId: string }
  >();
  readonly #refusals: SourceRefusals;
  /** By source: monotonic time of its last token. */
  readonly #lastSuccessMs = new Map<string, number>();
  readonly #unsubscribe: () => void;
  readonly #closing = new AbortController();
  /**
   * Objects change in bursts: unwanted tokens are dropped once, in the next turn of the event loop.
   */
  readonly #dropUnwanted: Debounced;

  constructor(options: TokenBrokerOptions) {
    const { imds, demand, clock, random, maxEntries, waitMs, observer } = options;
    this.#options = options;
    this.#imdsLimiter = new RateLimiter({ clock, ...imds.budget });
    this.#cache = new TokenCache<BrokerRequest, SourceFailure>({
      clock,
      random,
      failures,
      limiterOf: ({ identity }) => this.#limiterOf(identity),
      partyOf: ({ party }) => party,
      groupOf: ({ identity }) => identityKey(identity),
      maxPerGroup: maxPerIdentity,
      maxEntries,
      maxWaiters,
      minLifeMs,
      waitMs,
      waitWithTokenMs,
      usedWithinMs,
      fetch: (request) => this.#fetch(request),
      isWanted: (request) => this.#isWanted(request),
      onRefresh: (outcome) => observer.onRefresh(outcome),
      onBug: (error) => observer.onSourceBug(error),
    });
    this.#refusals = new SourceRefusals(clock, demand, {
      onRefused: (owner, refusal) => {
        const leftMs = () => this.#leftMsOf(owner.uid, identityKey(refusal.identity));
        observer.onRefused?.(owner, refusal, leftMs);
      },
      onAccepted: (owner) => observer.onAccepted?.(owner),
    });
    this.#dropUnwanted = debounce(clock, 0, () => {
      this.#refusals.drop();
      this.#cache.drop((request) => !this.#isWanted(request));
      for (const [key, { identity }] of this.#objectIds) {
        if (!demand.isGranted(identity)) this.#objectIds.delete(key);
      }
    });
    this.#unsubscribe = demand.onChange(() => {
      const isEmpty = this.#cache.isEmpty && this.#refusals.isEmpty;
      if (!isEmpty || this.#objectIds.size > 0) this.#dropUnwanted.trigger();
    });
  }

  samples(): readonly Sample[] {
    const nowMs = this.#options.clock.monotonicMs();
    const ages = [...this.#lastSuccessMs].map(
      ([source, atMs]) => [source, (nowMs - atMs) / 1000] as const,
    );
    return [
      { metric: 'nmi_token_cache_entries', value: this.#cache.size },
      ...soonestExpiries(this.#cache.tokens()),
      ...refusedIdentities([...this.#refusedOwners(), ...this.#refusedOfNode()]),
      ...samplesBy('nmi_upstream_last_success_seconds', 'source', Object.fromEntries(ages)),
    ];
  }

  /** A token from memory, without waiting, by the key that `tokenKey` returns. */
  peek(key: string): RenderedToken | undefined {
    return this.#cache.peek(key);
  }

  /** With another try, within a second, if Entra ID refused a federated credential by mistake. */
  async get(identity: UpstreamIdentity, resource: string, party: Party): Promise<CachedToken> {
    const { clock } = this.#options;
    const request = this.#request(identity, resource, party);
    const untilMs = clock.monotonicMs() + maxRetryMs;
    for (;;) {
      const cached = await this.#cache.get(request);
      if (cached.ok || cached.failure.reason !== 'federation_pending') return withCooldown(cached);
      if (clock.monotonicMs() + cached.cooldownLeftMs > untilMs) return withCooldown(cached);
      // Outside the fetch: one that waits must not occupy a slot of its upstream.
      await pause(clock, cached.cooldownLeftMs, this.#closing.signal);
    }
  }

  /**
   * A token that the upstream has just issued, for a client that does not accept the one in memory.
   * At most one in ten seconds for each key: in between all callers get the last one.
   */
  async renew(identity: UpstreamIdentity, resource: string, party: Party): Promise<CachedToken> {
    const request = this.#request(identity, resource, party);
    const { key } = request;
    if (this.#renewing.size >= maxRenewing) this.#renewing.clear();
    this.#renewing.add(key);
    let cached = await this.#cache.renew(request, renewPauseMs);
    // The fetch that it joined had begun before, and returned a token from the upstream's cache.
    if (cached.ok && cached.outcome === 'coalesced' && !this.#made.has(cached.rendered.token)) {
      cached = await this.#cache.renew(request, renewPauseMs);
    }
    // A fetch that is still pending, even without a waiter, removes the mark itself.
    if (isOver.has(cached.outcome)) this.#renewing.delete(key);
    return withCooldown(cached);
  }

  /**
   * A token other than a bad one, for a client with a token that a resource has revoked: the one in
   * memory if it is a different one, else a new one, which all callers share. So a bad token costs
   * one fetch.
   *
   * @param badSha256 of the token, in lower-case hex.
   */
  async replace(
    identity: UpstreamIdentity,
    resource: string,
    party: Party,
    badSha256: string,
  ): Promise<CachedToken> {
    const cached = await this.get(identity, resource, party);
    if (!cached.ok) return cached;
    const { accessToken } = cached.rendered.token;
    if (createHash('sha256').update(accessToken).digest('hex') !== badSha256) return cached;
    return this.renew(identity, resource, party);
  }

  /** The object id of an identity, from the upstream's tokens; undefined before the first one. */
  objectIdOf(identity: UpstreamIdentity): string | undefined {
    return this.#objectIds.get(identityKey(identity))?.objectId;
  }

  /** The cached state of these identities, by resource; of a token only its times. */
  describe(identities: readonly UpstreamIdentity[]): readonly BrokeredStatus[] {
    const prefixes = identities.map((identity) => tokenKey(identity, ''));
    return this.#cache
      .describe(({ key }) => prefixes.some((prefix) => key.startsWith(prefix)))
      .map((status) => {
        const { failure, cooldownLeftMs } = status;
        return { ...status, failure: failure && withRestOfCooldown(failure, cooldownLeftMs) };
      });
  }

  /**
   * Whether the source refuses an identity, or one before it in its chain.
   *
   * @param resource of the tokens that count; undefined for all.
   */
  refusalOf(identity: UpstreamIdentity, resource: string | undefined): RefusedBySource | undefined {
    const lastKey = identityKey(identity);
    for (const leg of legsOf(identity).toReversed()) {
      const key = identityKey(leg);
      const refusal = this.#refusals.of(key, resource);
      if (refusal === undefined) continue;
      const leftMs = leftOf(this.#livesOf([key, lastKey], resource), key, lastKey);
      const { clock, breakMs } = this.#options;
      if (isReported(refusal, leftMs, clock.wallMs(), breakMs)) return { refusal, leftMs };
    }
    return undefined;
  }

  /** Of each owner, the one whose cached tokens end first. O(tokens). */
  #refusedOwners(): readonly RefusedIdentity[] {
    const refused = new Map<string, RefusedIdentity>();
    const keys = [...this.#refusals.keys()];
    const owned = keys.flatMap((key) =>
      this.#options.demand.ownersOf(key).map(({ owner, lastKey }) => ({ key, owner, lastKey })),
    );
    const lives = this.#livesOf(owned.flatMap(({ key, lastKey }) => [key, lastKey]));
    for (const { key, owner, lastKey } of owned) {
      const refusal = this.#refusals.of(key);
      const leftMs = leftOf(lives, key, lastKey);
      if (refusal === undefined || leftMs >= (refused.get(owner.uid)?.leftMs ?? Infinity)) continue;
      refused.set(owner.uid, { owner, reason: refusal.failure.reason, leftMs });
    }
    return [...refused.values()];
  }

  /** Tokens of excepted pods, whose identities have no owner. */
  *#refusedOfNode(): Iterable<RefusedIdentity> {
    const { demand } = this.#options;
    for (const { request, token } of this.#cache.tokens()) {
      if (token.failedRefreshes === 0 || token.state === 'idle') continue;
      const reason = this.#cache.lastFailure(request.key)?.reason;
      if (reason === undefined || demand.isGranted(request.identity)) continue;
      yield { owner: undefined, reason, leftMs: token.expiresInMs };
    }
  }

  /** The Secrets that tokens in memory were obtained with, each once. */
  secretsInUse(): readonly ObjectName[] {
    const secrets = new Map<string, ObjectName>();
    for (const { request } of this.#cache.tokens()) {
      const secret = secretBehind(request.identity);
      if (secret !== undefined) secrets.set(fullName(secret), secret);
    }
    return [...secrets.values()];
  }

  /** Drops the tokens that were obtained with a Secret. */
  dropTokensBySecret({ namespace, name }: ObjectName): void {
    this.#cache.dropTokens(({ identity }) => {
      const secret = secretBehind(identity);
      return secret?.name === name && secret.namespace === namespace;
    });
  }

  [Symbol.dispose](): void {
    this.#unsubscribe();
    this.#closing.abort();
    this.#dropUnwanted[Symbol.dispose]();
    this.#cache[Symbol.dispose]();
    this.#imdsLimiter[Symbol.dispose]();
    for (const limiter of this.#entraLimiters.values()) limiter[Symbol.dispose]();
  }

  #request(identity: UpstreamIdentity, resource: string, party: Party): BrokerRequest {
    const isExcepted = !this.#options.demand.isGranted(identity);
    return { key: tokenKey(identity, resource), identity, resource, party, isExcepted };
  }

  async #fetch({ key, identity, resource, party }: BrokerRequest): Promise<SourceResult> {
    const { imds, clock, observer, nextImdsFetchId } = this.#options;
    const startedAtMs = clock.monotonicMs();
    const hasToken = this.#cache.hasToken(key);
    const limiter = this.#limiterOf(identity);
    const mayRetry = (): boolean => limiter.takeTry();
    const bypassCache = this.#renewing.delete(key);
    const fetchId = identity.kind === 'entra' ? randomUUID() : nextImdsFetchId();
    const request = { resource, bypassCache, correlationId: fetchId };
    const fetched =
      identity.kind === 'entra'
        ? await this.#fetchFromEntra({ ...request, identity }, party, mayRetry)
        : await imds.source.fetch({ ...request, identity }, mayRetry);
    const endedAtMs = clock.monotonicMs();
    const counted = fetched.ok
      ? fetched
      : failed(countRefusal(fetched.failure, key, this.#cache.lastFailure(key), endedAtMs));
    const result = withFetchId(counted, fetchId);
    if (bypassCache && result.ok) this.#made.add(result.token);
    if (result.ok) this.#lastSuccessMs.set(sourceNameOf(identity), endedAtMs);
    const owners = this.#ownersOf(identity, result);
    observer.onFetch(identity, result, endedAtMs - startedAtMs, owners);
    this.#refusals.note({ identity, resource, hasToken }, result);
    if (!result.ok && result.failure.reason === 'credential_missing') this.#dropTokensOf(identity);
    const objectId = result.ok ? objectIdOf(result.token.accessToken) : undefined;
    if (objectId !== undefined) this.#objectIds.set(identityKey(identity), { identity, objectId });
    return result;
  }

  /** In a chain with the token of the leg before, which has a life of its own in the cache. */
  async #fetchFromEntra(
    request: TokenRequest<EntraIdentity>,
    party: Party,
    mayRetry: MayRetry,
  ): Promise<SourceResult> {
    const { source } = this.#options.entra;
    const leg = assertionOf(request.identity.credential);
    if (leg === undefined) return source.fetch(request, mayRetry);
    const { assertedBy, audience } = leg;
    const before = await this.#cache.get(this.#request(assertedBy, audience, party));
    if (!before.ok) {
      const { failure, cooldownLeftMs: cooldownMs } = before;
      return failed(failureOfLeg({ ...failure, cooldownMs }, assertedBy));
    }
    const { accessToken } = before.rendered.token;
    const result = await source.fetch({ ...request, assertion: accessToken }, mayRetry);
    return result.ok ? result : failed(refusalOfLeg(result.failure, request.identity, accessToken));
  }

  /** For the report of a failure; a success names none. */
  #ownersOf(identity: UpstreamIdentity, { ok }: SourceResult): readonly IdentityOwner[] {
    if (ok) return [];
    const owners = this.#options.demand.ownersOf(identityKey(identity)).map(({ owner }) => owner);
    return [...new Map(owners.map((owner) => [owner.uid, owner])).values()];
  }

  #leftMsOf(uid: string, key: string): number | undefined {
    const owned = this.#options.demand.ownersOf(key).filter(({ owner }) => owner.uid === uid);
    if (owned.length === 0) return undefined;
    const lives = this.#livesOf([key, ...owned.map(({ lastKey }) => lastKey)]);
    return Math.min(...owned.map(({ lastKey }) => leftOf(lives, key, lastKey)));
  }

  /** By key of the identity: how long the first of its tokens lives that pods use. */
  #livesOf(keys: readonly string[], resource?: string): ReadonlyMap<string, number> {
    const wanted = new Set(keys);
    if (keys.length === 0) return new Map();
    const lives = new Map<string, { ms: number; isUsed: boolean }>();
    for (const { request, token } of this.#cache.tokens()) {
      const key = identityKey(request.identity);
      const isAnother = resource !== undefined && request.resource !== resource;
      if (!wanted.has(key) || token.expiresInMs <= 0) continue;
      // That of an earlier leg is for an audience, whatever resource a pod requests.
      if (isAnother && key === keys.at(-1)) continue;
      const isUsed = token.state !== 'idle';
      const known = lives.get(key);
      const isFirst = known === undefined || (isUsed && !known.isUsed);
      if (!isFirst && (known.isUsed !== isUsed || known.ms <= token.expiresInMs)) continue;
      lives.set(key, { ms: token.expiresInMs, isUsed });
    }
    return new Map([...lives].map(([key, { ms }]) => [key, ms]));
  }

  /** The credential was deleted, so the tokens of the identity are dropped. */
  #dropTokensOf(identity: UpstreamIdentity): void {
    const gone = identityKey(identity);
    this.#cache.dropTokens((request) => identityKey(request.identity) === gone);
  }

  #limiterOf(identity: UpstreamIdentity): RateLimiter {
    if (identity.kind !== 'entra') return this.#imdsLimiter;
    const key = `${identity.authority} ${kindsOf(identity)}`;
    const known = this.#entraLimiters.get(key);
    if (known !== undefined) return known;
    const { clock, entra } = this.#options;
    const limiter = new RateLimiter({ clock, ...entra.budget });
    this.#entraLimiters.set(key, limiter);
    return limiter;
  }

  /**
   * A pod is bound to it, or an excepted pod requested it, which no change of a binding can revoke.
   */
  #isWanted({ identity, isExcepted }: BrokerRequest): boolean {
    const { demand } = this.#options;
    return demand.isGranted(identity) || (isExcepted && demand.hasExcepted());
  }
}

/** Its own first. A fetch waits for the leg before it, which must not queue behind it. */
function kindsOf(identity: UpstreamIdentity): string {
  if (identity.kind !== 'entra') return 'imds';
  const leg = assertionOf(identity.credential)?.assertedBy;
  return leg === undefined
    ? identity.credential.kind
    : `${identity.credential.kind} ${kindsOf(leg)}`;
}

/** The last one of a chain is served from memory, and renewed with what is left of the one before. */
function leftOf(lives: ReadonlyMap<string, number>, key: string, lastKey: string): number {
  return Math.max(lives.get(key) ?? 0, lives.get(lastKey) ?? 0);
}

function withFetchId(result: SourceResult, fetchId: string): SourceResult {
  return result.ok
    ? { ok: true, token: { ...result.token, fetchId } }
    : { ok: false, failure: { ...result.failure, fetchId } };
}

function secretBehind(identity: UpstreamIdentity): ObjectName | undefined {
  return identity.kind === 'entra' ? secretOf(identity.credential) : undefined;
}

function withCooldown(cached: CachedToken): CachedToken {
  if (cached.ok) return cached;
  return { ...cached, failure: withRestOfCooldown(cached.failure, cached.cooldownLeftMs) };
}

/** Sets `Retry-After` to the rest of the cooldown. */
function withRestOfCooldown(failure: SourceFailure, cooldownLeftMs: number): SourceFailure {
  if (cooldownLeftMs === 0 || !mayPass.has(failure.reason)) return failure;
  const cooldownS = Math.ceil(cooldownLeftMs / 1000);
  const { reason, retryAfterS: askedS = cooldownS } = failure;
  // The `Retry-After` of a throttling upstream is the cooldown, which runs down; that of a failing
  // one is for the caller.
  const retryAfterS = reason === 'upstream_down' ? Math.max(cooldownS, askedS) : cooldownS;
  return { ...failure, retryAfterS };
}
