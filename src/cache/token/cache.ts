/**
 * Tokens by key, in front of every source. Pure: no I/O; time, randomness and the source are given.
 *
 * 1. At most one fetch per key is in flight, owned by the cache. Callers that arrive meanwhile wait
 *    for it and share its outcome, success or failure. A waiter leaves at its own deadline; the
 *    fetch continues.
 * 2. From half of its life on (see `refresh-policy.ts`) a token is refreshed in the background, if
 *    it was used in the last hours and `isWanted` returns true. Otherwise it is left to expire, and
 *    the next use resumes the refresh. A failed refresh does not harm the token.
 * 3. With less than `minLifeMs` left, a caller waits for a new token, and gets the old one if it is
 *    still valid when the wait ends. An expired token is never served (see `entry.ts`).
 * 4. A failure with a cooldown is returned at once during that time, for its key only (see
 *    `negative-cache.ts`).
 * 5. A rate limiter bounds the fetches from each upstream; callers go first, pod by pod in turn. If
 *    its queue is full, a caller gets a valid token from memory, or `overloaded`. So do those of a
 *    pod with its share of the waiters, while the waiters are short.
 * 6. Everything is bounded: tokens (LRU eviction, also within a group), negative entries, waiters,
 *    fetches.
 * 7. `drop` takes effect at once: the result of a running fetch for a dropped key is not stored.
 *    After disposal no timer is armed, and every waiter has its answer.
 * 8. Requests with the same key may differ in fields that `drop` matches. A token in memory and the
 *    fetch of its successor belong to the same request, so that `drop` treats both alike. An
 *    internal error for one key fails the callers of that key and evicts its token; other keys are
 *    unaffected.
 *
 * `R` is the request to the source, `F` its type of failure.
 */
import { Counts } from '../../base/counts.ts';
import { LinkedList } from '../../base/linked-list.ts';
import { TimerQueue } from '../../base/time/timer-queue.ts';
import { NegativeCache, type Cooldown, type Keyed } from './negative-cache.ts';
import { CacheEntry, type EntryState } from './entry.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { RateLimiter } from '../../base/rate-limiter.ts';
import type { Party } from '../../base/fair-queue.ts';
import { InflightFetch, type FetchResult, type Waiter } from './inflight.ts';
import { refreshDelayMs, retryDelayMs } from './refresh-policy.ts';
import { endsAtWallMs, RenderedToken, type Token } from './token.ts';

export type Fetched<F extends Cooldown> =
  { readonly ok: true; readonly token: Token } | { readonly ok: false; readonly failure: F };

/**
 * Where an answer comes from: `hit` memory, `miss` a fetch that this caller started, `coalesced` a
 * fetch that another caller started, `stale` a valid token because the refresh failed or takes too
 * long, `negative` a cached failure, `timeout` nothing before the caller's deadline, `overloaded`
 * the queue or the waiters are at their limit.
 */
export type CacheOutcome =
  'hit' | 'miss' | 'coalesced' | 'stale' | 'negative' | 'timeout' | 'overloaded';

export type Cached<F extends Cooldown> =
  | { readonly ok: true; readonly outcome: CacheOutcome; readonly rendered: RenderedToken }
  | {
      readonly ok: false;
      readonly outcome: CacheOutcome;
      readonly failure: F;
      /** Milliseconds during which this failure is returned without a fetch; 0 for none. */
      readonly cooldownLeftMs: number;
    };

/**
 * Outcome of a background refresh that was due: `deferred` the rate limiter's queue is full,
 * `skipped` the token is left to expire.
 */
export type RefreshOutcome = 'ok' | 'failed' | 'deferred' | 'skipped';

/** A token's state, without the token. */
export interface TokenStatus {
  readonly state: EntryState;
  /** Milliseconds since it was fetched; absent from an older agent. */
  readonly ageMs?: number;
  /** Milliseconds by the stricter clock; at 0 or less it is not served. */
  readonly expiresInMs: number;
  /** The token is served without a fetch. */
  readonly isServed: boolean;
  /** Milliseconds until the background refresh; undefined if none is planned. */
  readonly refreshInMs: number | undefined;
  /** Refreshes that failed in a row. */
  readonly failedRefreshes: number;
}

/** Everything that the cache stores for one key, without the token. */
export interface KeyStatus<R extends Keyed, F extends Cooldown> {
  readonly request: R;
  readonly token: TokenStatus | undefined;
  /** A fetch is running or queued. */
  readonly isFetching: boolean;
  /** The last failure, until a success or its eviction. */
  readonly failure: F | undefined;
  /** Milliseconds during which `failure` is returned if there is no token. */
  readonly cooldownLeftMs: number;
}

export interface TokenCacheOptions<R extends Keyed, F extends Cooldown> {
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  /** The rate limiter for fetches of this request; the same one for the same key. */
  readonly limiterOf: (request: R) => RateLimiter;
  /** The pod that is charged for the fetch. */
  readonly partyOf: (request: R) => Party;
  /** Must have its own timeout. A rejection is a bug of the source. */
  readonly fetch: (request: R) => Promise<Fetched<F>>;
  /** Whether a background refresh is worth its call. */
  readonly isWanted: (request: R) => boolean;
  readonly onRefresh: (outcome: RefreshOutcome) => void;
  /** Receives rejections of `fetch` and internal errors of the cache. */
  readonly onBug: (error: unknown) => void;
  /** Failures of the cache itself, in the source's type. */
  readonly failures: {
    /** The queue or the waiters are at their limit. */
    readonly overloaded: F;
    /** The caller's deadline has passed, or the cache is closed. */
    readonly late: F;
    /** The fetched token has already expired. */
    readonly expired: F;
  };
  readonly maxEntries: number;
  /** Quota group of a request, and the most tokens of a group. */
  readonly groupOf: (request: R) => string;
  readonly maxPerGroup: number;
  readonly maxWaiters: number;
  /** A token with less life left is fetched again before it is served. */
  readonly minLifeMs: number;
  /** Longest wait of a caller without a valid token in memory. */
  readonly waitMs: number;
  /** Longest wait of a caller with a valid token in memory. */
  readonly waitWithTokenMs: number;
  /** A token not used for so long is not refreshed. */
  readonly usedWithinMs: number;
}

/**
 * More than can be active: upstreams get about 60 requests a second, and few cooldowns are longer
 * than 45 s. A caller can make an entry cost 7 KB, and an entry outlives its cooldown.
 */
const maxNegativeEntries = 3_000;
/** Most waiters of one pod while half of all are taken: room for the 250 pods of a node. */
const waitersWhenShort = 10;

export class TokenCache<R extends Keyed, F extends Cooldown> implements Disposable {
  readonly #options: TokenCacheOptions<R, F>;
  readonly #clock: Clock;
  readonly #entries = new Map<string, CacheEntry<R>>();
  /** Least recently used first. */
  readonly #byUse = new LinkedList<CacheEntry<R>>();
  readonly #groups = new Map<string, Set<CacheEntry<R>>>();
  readonly #inflight = new Map<string, InflightFetch<R, F>>();
  readonly #negative: NegativeCache<R, F>;
  readonly #timers: TimerQueue;
  #waiting = 0;
  readonly #waitingOf = new Counts();
  #isDisposed = false;

  constructor(options: TokenCacheOptions<R, F>) {
    this.#options = options;
    this.#clock = options.clock;
    this.#negative = new NegativeCache(
      options.clock,
      Math.min(options.maxEntries, maxNegativeEntries),
      (request) => options.partyOf(request).namespace,
    );
    this.#timers = new TimerQueue(options.clock);
  }

  get size(): number {
    return this.#entries.size;
  }

  get stats(): { readonly negative: number; readonly inflight: number; readonly waiting: number } {
    return { negative: this.#negative.size, inflight: this.#inflight.size, waiting: this.#waiting };
  }

  /** Nothing is stored or in flight, so `drop` would find nothing. */
  get isEmpty(): boolean {
    return this.#entries.size + this.#negative.size + this.#inflight.size === 0;
  }

  /** Synchronous look-up: a token with enough life left, or `undefined`. O(1). */
  peek(key: string): RenderedToken | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const nowMs = this.#clock.monotonicMs();
    if (entry.lifeMs(this.#clock.wallMs(), nowMs) < entry.floorMs) return undefined;
    this.#use(entry, nowMs);
    return entry.rendered;
  }

  /**
   * A token from memory or from the source.
   *
   * @param waitMs the caller's deadline; the option of that name is the maximum.
   * @throws the rejection of `fetch` if there is no valid token.
   */
  get(request: R, waitMs: number = this.#options.waitMs): Promise<Cached<F>> {
    const { key } = request;
    const rendered = this.peek(key);
    if (rendered !== undefined) return Promise.resolve({ ok: true, outcome: 'hit', rendered });

    const entry = this.#entries.get(key);
    if (entry !== undefined) this.#use(entry, this.#clock.monotonicMs());
    return this.#ask(request, waitMs);
  }

  #ask(request: R, waitMs: number): Promise<Cached<F>> {
    const { key } = request;
    const { failures, maxWaiters } = this.#options;
    if (this.#isDisposed) return Promise.resolve(this.#orStale(key, 'timeout', failures.late));
    const failure = this.#negative.activeFailure(key);
    if (failure !== undefined) return Promise.resolve(this.#orStale(key, 'negative', failure));

    const existing = this.#inflight.get(key);
    const party = this.#options.partyOf(request);
    const mayWait =
      2 * this.#waiting < maxWaiters ||
      (this.#waiting < maxWaiters && this.#waitingOf.get(party.pod) < waitersWhenShort);
    const inflight = mayWait ? (existing ?? this.#begin(request, party)) : undefined;
    if (inflight === undefined) {
      return Promise.resolve(this.#orStale(key, 'overloaded', failures.overloaded));
    }
    inflight.isForCaller = true;
    if (existing !== undefined) this.#limiterOf(existing).hurry(existing, party);
    return this.#wait(request, inflight, existing === undefined ? 'miss' : 'coalesced', waitMs);
  }

  /**
   * Fetches a new token although one is in memory; concurrent callers share the fetch. Within
   * `pauseMs` of the last renewal it returns the token in memory.
   */
  renew(request: R, pauseMs: number): Promise<Cached<F>> {
    const entry = this.#entries.get(request.key);
    if (entry === undefined) return this.get(request);
    const nowMs = this.#clock.monotonicMs();
    if (!this.#inflight.has(request.key)) {
      if (nowMs - entry.renewedAtMs < pauseMs) return this.get(request);
      entry.renewedAtMs = nowMs;
    }
    this.#use(entry, nowMs);
    return this.#ask(request, this.#options.waitMs);
  }

  /** A token that has not expired. Does not count as a use. */
  hasToken(key: string): boolean {
    return this.#validToken(key) !== undefined;
  }

  /** The last failure of a key that has not succeeded since. */
  lastFailure(key: string): F | undefined {
    return this.#negative.lastFailure(key);
  }

  /** State of all keys whose request matches. Does not count as a use. O(keys). */
  describe(isAsked: (request: R) => boolean): readonly KeyStatus<R, F>[] {
    const statuses = new Map<string, KeyStatus<R, F>>();
    const note = (request: R, facts: Partial<KeyStatus<R, F>>): void => {
      if (!isAsked(request)) return;
      const none = { token: undefined, isFetching: false, failure: undefined, cooldownLeftMs: 0 };
      const known = statuses.get(request.key) ?? { request, ...none };
      statuses.set(request.key, { ...known, ...facts });
    };
    for (const entry of this.#entries.values())
      note(entry.request, { token: this.#statusOf(entry) });
    for (const { request } of this.#inflight.values()) note(request, { isFetching: true });
    for (const { request, failure, cooldownLeftMs } of this.#negative.all()) {
      note(request, { failure, cooldownLeftMs });
    }
    return [...statuses.values()];
  }

  /** Each token in memory. Does not count as a use. O(tokens). */
  *tokens(): Iterable<{ readonly request: R; readonly token: TokenStatus }> {
    for (const entry of this.#entries.values()) {
      yield { request: entry.request, token: this.#statusOf(entry) };
    }
  }

  /** Deletes all matching tokens and negative entries, and cancels or discards matching fetches. */
  drop(isDropped: (request: R) => boolean): void {
    this.dropTokens(isDropped);
    for (const inflight of this.#inflight.values()) {
      if (!isDropped(inflight.request)) continue;
      inflight.isDropped = true;
      if (inflight.hasStarted || inflight.waiters.size > 0) continue;
      this.#inflight.delete(inflight.request.key);
      this.#limiterOf(inflight).leave(inflight);
    }
    this.#negative.drop(isDropped);
  }

  /** Deletes matching tokens, but not fetches and negative entries. */
  dropTokens(isDropped: (request: R) => boolean): void {
    for (const entry of this.#entries.values()) {
      if (isDropped(entry.request)) this.#remove(entry);
    }
  }

  /** Settles all waiters. Does not dispose the rate limiters, which the cache does not own. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    const fetches = [...this.#inflight.values()];
    this.#inflight.clear();
    for (const inflight of fetches) {
      inflight.isDropped = true;
      if (!inflight.hasStarted) this.#limiterOf(inflight).leave(inflight);
      settleAll(inflight, { kind: 'failure', failure: this.#options.failures.late });
    }
    for (const entry of this.#entries.values()) this.#remove(entry);
    this.#negative.drop(() => true);
    this.#timers[Symbol.dispose]();
  }

  #use(entry: CacheEntry<R>, nowMs: number): void {
    entry.usedAtMs = nowMs;
    this.#byUse.remove(entry);
    this.#byUse.add(entry);
    if (entry.state !== 'idle') return;
    entry.wake();
    this.#timers.set(entry, 0);
  }

  #wait(
    request: R,
    inflight: InflightFetch<R, F>,
    outcome: CacheOutcome,
    waitMs: number,
  ): Promise<Cached<F>> {
    const { promise, resolve, reject } = Promise.withResolvers<Cached<F>>();
    const { partyOf, waitMs: mostMs, waitWithTokenMs } = this.#options;
    const { pod } = partyOf(request);
    const hasToken = this.#validToken(request.key) !== undefined;
    const leave = (): void => {
      this.#waiting--;
      this.#waitingOf.remove(pod);
      this.#timers.clear(waiter);
      inflight.waiters.delete(waiter);
    };
    const answer = (result: FetchResult<F>): void => {
      if (result.kind === 'token') {
        resolve({ ok: true, outcome, rendered: result.rendered });
      } else if (result.kind === 'failure') {
        resolve(this.#orStale(request.key, outcome, result.failure));
      } else {
        const rendered = this.#validToken(request.key);
        if (rendered === undefined) reject(result.error);
        else resolve({ ok: true, outcome: 'stale', rendered });
      }
    };
    // A fetch from before the drop may use outdated settings, so a later caller starts a new one.
    const askAgain = (): void => {
      this.get(request, waiter.dueAtMs - this.#clock.monotonicMs()).then(resolve, reject);
    };
    const end = inflight.isDropped ? askAgain : answer;
    const waiter: Waiter<F> = {
      dueAtMs: 0,
      disarm: undefined,
      settle: (result) => {
        try {
          leave();
          end(result);
        } catch (error) {
          this.#options.onBug(error);
          reject(error);
        }
      },
      fire: () => {
        leave();
        resolve(this.#orStale(request.key, 'timeout', this.#options.failures.late));
      },
    };
    this.#waiting++;
    this.#waitingOf.add(pod);
    inflight.waiters.add(waiter);
    this.#timers.set(waiter, Math.min(waitMs, hasToken ? waitWithTokenMs : mostMs));
    return promise;
  }

  /**
   * Queues a fetch; `undefined` when the rate limiter's queue is full.
   *
   * @param party the pod that waits for it; undefined for a background refresh.
   */
  #begin(request: R, party: Party | undefined): InflightFetch<R, F> | undefined {
    const entry = this.#entries.get(request.key);
    const inflight = new InflightFetch<R, F>(
      entry?.request ?? request,
      party === undefined,
      this.#run,
    );
    if (!this.#limiterOf(inflight).enter(inflight, party)) return undefined;
    this.#inflight.set(request.key, inflight);
    if (entry !== undefined) {
      entry.beginRefresh();
      this.#timers.clear(entry);
    }
    return inflight;
  }

  #limiterOf(inflight: InflightFetch<R, F>): RateLimiter {
    return this.#options.limiterOf(inflight.request);
  }

  readonly #run = (inflight: InflightFetch<R, F>): void => {
    void this.#fetch(inflight.request).then((result) => {
      const { key } = inflight.request;
      if (this.#inflight.get(key) === inflight) this.#inflight.delete(key);
      this.#guard(key, () => {
        if (!inflight.isDropped) this.#record(inflight, result);
      });
      settleAll(inflight, result);
      this.#limiterOf(inflight).leave(inflight);
    });
  };

  /** An internal error for one key evicts its token and does not affect other keys. */
  #guard(key: string, deed: () => void): void {
    try {
      deed();
    } catch (error) {
      this.#options.onBug(error);
      const entry = this.#entries.get(key);
      if (entry !== undefined) this.#remove(entry);
    }
  }

  async #fetch(request: R): Promise<FetchResult<F>> {
    try {
      const fetched = await this.#options.fetch(request);
      if (!fetched.ok) return { kind: 'failure', failure: fetched.failure };
      if (endsAtWallMs(fetched.token) <= this.#clock.wallMs()) {
        return { kind: 'failure', failure: this.#options.failures.expired };
      }
      return { kind: 'token', rendered: new RenderedToken(fetched.token) };
    } catch (error) {
      this.#options.onBug(error);
      return { kind: 'bug', error };
    }
  }

  #record(inflight: InflightFetch<R, F>, result: FetchResult<F>): void {
    const { request } = inflight;
    if (result.kind === 'token') {
      this.#negative.reset(request.key);
      this.#keep(inflight, result.rendered);
    } else {
      if (result.kind === 'failure') this.#negative.fail(request, result.failure);
      const entry = this.#entries.get(request.key);
      if (entry !== undefined) this.#armRetry(entry, entry.failRefresh());
    }
    if (inflight.isRefresh) {
      this.#options.onRefresh(result.kind === 'token' ? 'ok' : 'failed');
    }
  }

  #keep({ request, isForCaller }: InflightFetch<R, F>, rendered: RenderedToken): void {
    const { minLifeMs, maxEntries, random } = this.#options;
    const nowWallMs = this.#clock.wallMs();
    const arrival = { rendered, nowWallMs, nowMs: this.#clock.monotonicMs(), minLifeMs };
    let entry = this.#entries.get(request.key);
    if (entry === undefined) {
      // The token was evicted during its refresh, in favor of more recently used ones.
      if (!isForCaller) return;
      entry = new CacheEntry(request, arrival, this.#onDue);
      this.#entries.set(request.key, entry);
      this.#byUse.add(entry);
      const oldest = this.#byUse.first;
      if (this.#entries.size > maxEntries && oldest !== undefined) this.#remove(oldest);
      this.#addToGroup(entry);
    } else {
      entry.arrive(arrival);
    }
    const { refreshAtWallS } = rendered.token;
    const namedMs = refreshAtWallS === undefined ? Infinity : refreshAtWallS * 1000 - nowWallMs;
    const lifeMs = entry.lifeMs(nowWallMs, arrival.nowMs);
    this.#arm(entry, refreshDelayMs(lifeMs, namedMs, entry.short, random()));
  }

  /** The timer of an entry has fired: it is refreshed, retried or removed. */
  readonly #onDue = (entry: CacheEntry<R>): void => {
    this.#guard(entry.key, () => this.#handleDue(entry));
  };

  #handleDue(entry: CacheEntry<R>): void {
    const { usedWithinMs, isWanted, onRefresh } = this.#options;
    const unusedMs = this.#clock.monotonicMs() - entry.usedAtMs;
    if (this.#keptForMs(entry) <= 0) {
      this.#remove(entry);
    } else if (unusedMs > usedWithinMs || !isWanted(entry.request)) {
      if (entry.state !== 'idle') onRefresh('skipped');
      entry.rest();
      this.#arm(entry, Infinity);
    } else if (this.#negative.cooldownLeftMs(entry.key) > 0) {
      // The timer was set for the expiry, which a step of the wall clock has postponed.
      this.#armRetry(entry, 1);
    } else if (this.#begin(entry.request, undefined) === undefined) {
      onRefresh('deferred');
      this.#armRetry(entry, 1);
    }
  }

  /** Never before the cooldown has ended. */
  #armRetry(entry: CacheEntry<R>, failures: number): void {
    const cooldownLeftMs = this.#negative.cooldownLeftMs(entry.key);
    this.#arm(entry, Math.max(cooldownLeftMs, retryDelayMs(failures, this.#options.random())));
  }

  /** Sets the entry's timer to `delayMs`, or to its expiry if that is earlier. */
  #arm(entry: CacheEntry<R>, delayMs: number): void {
    this.#timers.set(entry, Math.min(delayMs, this.#keptForMs(entry)));
  }

  /** Evicts the group's least recently used token when the group exceeds its limit. */
  #addToGroup(entry: CacheEntry<R>): void {
    const { groupOf, maxPerGroup } = this.#options;
    const name = groupOf(entry.request);
    const members = this.#groups.get(name) ?? new Set();
    this.#groups.set(name, members.add(entry));
    if (members.size <= maxPerGroup) return;
    let oldest: CacheEntry<R> | undefined;
    for (const member of members) {
      if (member === entry) continue;
      if (oldest === undefined || member.usedAtMs < oldest.usedAtMs) oldest = member;
    }
    if (oldest !== undefined) this.#remove(oldest);
  }

  #remove(entry: CacheEntry<R>): void {
    const name = this.#options.groupOf(entry.request);
    const members = this.#groups.get(name);
    members?.delete(entry);
    if (members?.size === 0) this.#groups.delete(name);
    if (this.#entries.get(entry.key) === entry) {
      this.#entries.delete(entry.key);
      this.#byUse.remove(entry);
    }
    this.#timers.clear(entry);
  }

  #keptForMs(entry: CacheEntry<R>): number {
    return entry.keptForMs(this.#clock.wallMs(), this.#clock.monotonicMs());
  }

  #statusOf(entry: CacheEntry<R>): TokenStatus {
    const { state } = entry;
    const nowMs = this.#clock.monotonicMs();
    const expiresInMs = entry.lifeMs(this.#clock.wallMs(), nowMs);
    const isPlanned = state === 'fresh' || state === 'stale';
    return {
      state,
      ageMs: nowMs - entry.arrivedAtMs,
      expiresInMs,
      isServed: expiresInMs >= entry.floorMs,
      refreshInMs: isPlanned ? Math.max(0, entry.dueAtMs - nowMs) : undefined,
      failedRefreshes: entry.failures,
    };
  }

  #validToken(key: string): RenderedToken | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const lifeMs = entry.lifeMs(this.#clock.wallMs(), this.#clock.monotonicMs());
    return lifeMs > 0 ? entry.rendered : undefined;
  }

  #orStale(key: string, outcome: CacheOutcome, failure: F): Cached<F> {
    const rendered = this.#validToken(key);
    if (rendered !== undefined) return { ok: true, outcome: 'stale', rendered };
    return { ok: false, outcome, failure, cooldownLeftMs: this.#negative.cooldownLeftMs(key) };
  }
}

function settleAll<R extends Keyed, F>(
  inflight: InflightFetch<R, F>,
  result: FetchResult<F>,
): void {
  for (const waiter of [...inflight.waiters]) waiter.settle(result);
}
