/**
 * One token in the cache and where it stands.
 *
 * ```
 *   fresh ──► refreshing ──► fresh            a new token came
 *     │         │  ▲  └────► stale            the refresh failed; the token serves while it is valid
 *     ▼         │  └──────── stale, idle      the next try
 *    idle ◄─────┼─────────── stale            due, but nobody wants it: left to expire
 *     └─────────┴──────────► dead             expired, evicted or dropped; never comes back
 * ```
 *
 * Two clocks: the wall clock says when the token ends, and so does the monotonic clock, from the
 * life it had on arrival. The stricter one decides whether it is served, the more lenient one
 * whether it is kept. So a wall clock that steps forward makes the cache ask again without losing
 * the token, which serves again when the clock is corrected; and a wall clock that steps back
 * lends it no life. A clock that is wrong when a token comes is allowed for, where the source told
 * its own time.
 */
import type { QueuedTimer } from './timer-queue.ts';
import type { Keyed } from './negative-cache.ts';
import type { Linked } from './lru-list.ts';
import { endsAtWallMs, type RenderedToken } from './token.ts';

export type EntryState =
  | { readonly kind: 'fresh' }
  /** `failures` of the refreshes before this one, in a row. */
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
  /** What brought the first token; a refresh asks the same. */
  readonly request: R;
  rendered: RenderedToken;
  expiresAtWallMs: number;
  expiresAtMs: number;
  /**
   * Served without asking down to this much life. A token that arrived with less than it should
   * have serves down to half of that, or a source that has no better would be asked every time.
   */
  floorMs: number;
  /** Tokens in a row that arrived with less life than they should have. */
  short = 0;
  /** When a caller last had it made anew. */
  renewedAtMs = -Infinity;
  usedAtMs: number;
  dueAtMs = 0;
  heapIndex = -1;
  newer: CacheEntry<R> | undefined = undefined;
  older: CacheEntry<R> | undefined = undefined;
  #state: EntryState = { kind: 'fresh' };
  readonly #onDue: (entry: CacheEntry<R>) => void;

  constructor(request: R, arrival: Arrival, onDue: (entry: CacheEntry<R>) => void) {
    this.key = request.key;
    this.request = request;
    this.rendered = arrival.rendered;
    this.expiresAtWallMs = 0;
    this.expiresAtMs = 0;
    this.floorMs = 0;
    this.usedAtMs = arrival.nowMs;
    this.#onDue = onDue;
    this.arrive(arrival);
  }

  get state(): EntryState {
    return this.#state;
  }

  /** A token has come. Counts as no use. */
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

  /** Returns how many refreshes have failed in a row. */
  failRefresh(): number {
    const failures = this.#state.kind === 'refreshing' ? this.#state.failures + 1 : 1;
    this.#moveTo({ kind: 'stale', failures });
    return failures;
  }

  rest(): void {
    if (this.#state.kind !== 'idle') this.#moveTo({ kind: 'idle' });
  }

  /** Somebody uses it again after a rest. */
  wake(): void {
    this.#moveTo({ kind: 'stale', failures: 0 });
  }

  die(): void {
    this.#moveTo({ kind: 'dead' });
  }

  /** Milliseconds of life by the stricter clock: what may be served. */
  lifeMs(nowWallMs: number, nowMs: number): number {
    return Math.min(this.expiresAtWallMs - nowWallMs, this.expiresAtMs - nowMs);
  }

  /** Milliseconds until neither clock gives it life any more: how long it is kept. */
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
