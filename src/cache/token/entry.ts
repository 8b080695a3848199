/**
 * One token in the cache and its state.
 *
 * ```
 *   fresh ──► refreshing ──► fresh            a new token arrived
 *     │         │  ▲  └────► stale            the refresh failed; the token serves while it is valid
 *     ▼         │  └──────── stale, idle      the next attempt
 *    idle ◄─────┼─────────── stale            due but unused or unwanted: left to expire
 *     └─────────┴──────────► dead             expired, evicted or dropped; final
 * ```
 *
 * The expiry is computed by two clocks: by wall time, and by monotonic time from the life on
 * arrival. The earlier expiry decides whether the token is served, the later one whether it is
 * kept. So a wall clock that steps forward causes a refresh without losing the token, which is
 * served again when the clock is corrected, and a wall clock that steps back does not prolong its
 * life. If the source sent its own time, a wall clock that is wrong on arrival is compensated.
 */
import type { QueuedTimer } from '../../base/time/timer-queue.ts';
import type { Keyed } from './negative-cache.ts';
import type { Linked } from '../../base/lru-list.ts';
import { endsAtWallMs, type RenderedToken } from './token.ts';

export type EntryState =
  | { readonly kind: 'fresh' }
  /** `failures`: consecutive failed refreshes before this one. */
  | { readonly kind: 'refreshing'; readonly failures: number }
  | { readonly kind: 'stale'; readonly failures: number }
  | { readonly kind: 'idle' }
  | { readonly kind: 'dead' };

type StateName = EntryState['kind'];

const nextStates: Readonly<Record<StateName, readonly StateName[]>> = {
  fresh: ['fresh', 'refreshing', 'idle', 'dead'],
  refreshing: ['fresh', 'stale', 'dead'],
  stale: ['fresh', 'refreshing', 'idle', 'dead'],
  idle: ['fresh', 'refreshing', 'stale', 'dead'],
  dead: [],
};

export interface Arrival {
  readonly rendered: RenderedToken;
  readonly nowWallMs: number;
  readonly nowMs: number;
  /** See `CacheEntry.floorMs`. */
  readonly minLifeMs: number;
}

export class CacheEntry<R extends Keyed> implements QueuedTimer, Linked<CacheEntry<R>> {
  readonly key: string;
  /** Request of the first fetch, repeated by each refresh. */
  readonly request: R;
  rendered: RenderedToken;
  expiresAtWallMs = Number.NaN;
  expiresAtMs = Number.NaN;
  /**
   * The token is served without a fetch while it has at least this much life. A token that arrived
   * with less than `minLifeMs` is served until half of its life, or every request would cause a
   * fetch from a source that has no better token.
   */
  floorMs = Number.NaN;
  /** Consecutive tokens that arrived with less than `minLifeMs`. */
  short = 0;
  /** Time of the last `TokenCache.renew`. */
  renewedAtMs = -Infinity;
  usedAtMs: number;
  dueAtMs = 0;
  disarm: (() => void) | undefined = undefined;
  newer: CacheEntry<R> | undefined = undefined;
  older: CacheEntry<R> | undefined = undefined;
  #state: EntryState = { kind: 'fresh' };
  readonly #onDue: (entry: CacheEntry<R>) => void;

  constructor(request: R, arrival: Arrival, onDue: (entry: CacheEntry<R>) => void) {
    this.key = request.key;
    this.request = request;
    this.rendered = arrival.rendered;
    this.usedAtMs = arrival.nowMs;
    this.#onDue = onDue;
    this.arrive(arrival);
  }

  get state(): EntryState {
    return this.#state;
  }

  /** Stores a fetched token. Does not count as a use. */
  arrive({ rendered, nowWallMs, nowMs, minLifeMs }: Arrival): void {
    const { livesForS } = rendered.token;
    this.rendered = rendered;
    this.expiresAtWallMs = endsAtWallMs(rendered.token);
    const lifeMs = livesForS === undefined ? this.expiresAtWallMs - nowWallMs : livesForS * 1000;
    this.expiresAtMs = nowMs + lifeMs;
    const servedForMs = this.lifeMs(nowWallMs, nowMs);
    const isShort = servedForMs <= minLifeMs;
    this.floorMs = isShort ? servedForMs / 2 : minLifeMs;
    this.short = isShort ? this.short + 1 : 0;
    this.#moveTo({ kind: 'fresh' });
  }

  beginRefresh(): void {
    const failures = this.#state.kind === 'stale' ? this.#state.failures : 0;
    this.#moveTo({ kind: 'refreshing', failures });
  }

  /** Returns the number of consecutive failed refreshes. */
  failRefresh(): number {
    const failures = this.#state.kind === 'refreshing' ? this.#state.failures + 1 : 1;
    this.#moveTo({ kind: 'stale', failures });
    return failures;
  }

  rest(): void {
    if (this.#state.kind !== 'idle') this.#moveTo({ kind: 'idle' });
  }

  /** An idle token was used again. */
  wake(): void {
    this.#moveTo({ kind: 'stale', failures: 0 });
  }

  die(): void {
    this.#moveTo({ kind: 'dead' });
  }

  /** Milliseconds until the earlier expiry: how long it may be served. */
  lifeMs(nowWallMs: number, nowMs: number): number {
    return Math.min(this.expiresAtWallMs - nowWallMs, this.expiresAtMs - nowMs);
  }

  /** Milliseconds until the later expiry: how long it is kept. */
  keptForMs(nowWallMs: number, nowMs: number): number {
    return Math.max(this.expiresAtWallMs - nowWallMs, this.expiresAtMs - nowMs);
  }

  fire(): void {
    this.#onDue(this);
  }

  #moveTo(next: EntryState): void {
    if (!nextStates[this.#state.kind].includes(next.kind)) {
      throw new TypeError(`a cache entry cannot go from ${this.#state.kind} to ${next.kind}`);
    }
    this.#state = next;
  }
}
