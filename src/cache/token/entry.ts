/**
 * One token in the cache and its state.
 *
 * ```
 *   fresh ──► refreshing ──► fresh            a new token arrived
 *     │         │  ▲  └────► stale            the refresh failed; the token serves while it is valid
 *     ▼         │  └──────── stale, idle      the next attempt
 *    idle ◄─────┴─────────── stale            due but unused or unwanted: left to expire
 * ```
 *
 * The expiry is computed by two clocks: by wall time, and by monotonic time from the life on
 * arrival. The earlier expiry decides whether the token is served, the later one whether it is
 * kept. So a wall clock that steps forward causes a refresh without losing the token, which is
 * served again when the clock is corrected, and a wall clock that steps back does not prolong its
 * life. If the source sent its own time, a wall clock that is wrong on arrival is compensated.
 */
import type { Linked } from '../../base/linked-list.ts';
import type { QueuedTimer } from '../../base/time/timer-queue.ts';
import type { Keyed } from './negative-cache.ts';
import { endsAtWallMs, type RenderedToken } from './token.ts';

export type EntryState = 'fresh' | 'refreshing' | 'stale' | 'idle';

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
  arrivedAtMs = Number.NaN;
  usedAtMs: number;
  before: CacheEntry<R> | undefined = undefined;
  after: CacheEntry<R> | undefined = undefined;
  dueAtMs = 0;
  disarm: (() => void) | undefined = undefined;
  state: EntryState = 'fresh';
  /** Consecutive failed refreshes. */
  failures = 0;
  readonly #onDue: (entry: CacheEntry<R>) => void;

  constructor(request: R, arrival: Arrival, onDue: (entry: CacheEntry<R>) => void) {
    this.key = request.key;
    this.request = request;
    this.rendered = arrival.rendered;
    this.usedAtMs = arrival.nowMs;
    this.#onDue = onDue;
    this.arrive(arrival);
  }

  /** Stores a fetched token. Does not count as a use. */
  arrive({ rendered, nowWallMs, nowMs, minLifeMs }: Arrival): void {
    const { livesForS } = rendered.token;
    this.rendered = rendered;
    this.arrivedAtMs = nowMs;
    this.expiresAtWallMs = endsAtWallMs(rendered.token);
    const lifeMs = livesForS === undefined ? this.expiresAtWallMs - nowWallMs : livesForS * 1000;
    this.expiresAtMs = nowMs + lifeMs;
    const servedForMs = this.lifeMs(nowWallMs, nowMs);
    const isShort = servedForMs <= minLifeMs;
    this.floorMs = isShort ? servedForMs / 2 : minLifeMs;
    this.short = isShort ? this.short + 1 : 0;
    this.state = 'fresh';
    this.failures = 0;
  }

  beginRefresh(): void {
    this.state = 'refreshing';
  }

  /** Returns the number of consecutive failed refreshes. */
  failRefresh(): number {
    this.state = 'stale';
    this.failures += 1;
    return this.failures;
  }

  rest(): void {
    this.state = 'idle';
    this.failures = 0;
  }

  /** An idle token was used again. */
  wake(): void {
    this.state = 'stale';
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
}
