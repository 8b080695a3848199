/**
 * Tokens by key, in front of every source. Pure: no I/O, time by the injected clock.
 *
 * 1. One flight per key, owned by the cache: whoever comes while one is under way waits for it and
 *    shares its outcome, success or failure; a caller that leaves does not cancel it.
 * 2. A token with less than `minLifeMs` left is fetched again; if that fails it is still served
 *    while it is valid. An expired token is never served.
 * 3. A failure that names a hold time answers at once for that long, for its key alone.
 * 4. Bounded, least recently used out first.
 * 5. Expiry is judged by the wall clock and by the monotonic clock; the stricter one wins, so a
 *    clock step can make the cache ask again but never serve a dead token.
 *
 * `F` is the source's failure type; `holdMs` is how long asking again is useless.
 */
import type { Clock } from './clock.ts';
import { RenderedToken, type Token } from './token.ts';

export interface Held {
  readonly holdMs: number;
}

export type Fetched<F extends Held> =
  { readonly ok: true; readonly token: Token } | { readonly ok: false; readonly failure: F };

/**
 * How an answer came about: `hit` from memory, `miss` by this caller's own flight, `joined` on
 * another's, `stale` a valid token kept because refreshing failed, `held` a remembered failure.
 */
export type CacheOutcome = 'hit' | 'miss' | 'joined' | 'stale' | 'held';

export type Cached<F extends Held> =
  | { readonly ok: true; readonly outcome: CacheOutcome; readonly rendered: RenderedToken }
  | { readonly ok: false; readonly outcome: CacheOutcome; readonly failure: F };

interface Entry {
  readonly rendered: RenderedToken;
  readonly expiresAtMs: number;
}

interface Hold<F> {
  readonly failure: F;
  readonly untilMs: number;
}

export interface TokenCacheOptions {
  readonly clock: Clock;
  readonly maxEntries: number;
  /** Less than this left means: ask again before answering. */
  readonly minLifeMs: number;
}

export class TokenCache<F extends Held> {
  readonly #clock: Clock;
  readonly #maxEntries: number;
  readonly #minLifeMs: number;
  /** Insertion order is use order: a used entry moves to the end. */
  readonly #entries = new Map<string, Entry>();
  readonly #holds = new Map<string, Hold<F>>();
  readonly #flights = new Map<string, Promise<Fetched<F>>>();

  constructor(options: TokenCacheOptions) {
    this.#clock = options.clock;
    this.#maxEntries = options.maxEntries;
    this.#minLifeMs = options.minLifeMs;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The synchronous way: a token with enough life left, or `undefined`. */
  peek(key: string): RenderedToken | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || this.#lifeMs(entry) < this.#minLifeMs) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.rendered;
  }

  /** A token from memory or by `fetch`, which must deliver a live token or a failure. */
  async get(key: string, fetch: () => Promise<Fetched<F>>): Promise<Cached<F>> {
    const rendered = this.peek(key);
    if (rendered !== undefined) return { ok: true, outcome: 'hit', rendered };
    const hold = this.#holds.get(key);
    if (hold !== undefined && this.#clock.monotonicMs() < hold.untilMs) {
      return this.#orStale(key, 'held', hold.failure);
    }
    this.#holds.delete(key);
    const flying = this.#flights.get(key);
    const outcome = flying === undefined ? 'miss' : 'joined';
    const fetched = await (flying ?? this.#fly(key, fetch));
    if (!fetched.ok) return this.#orStale(key, outcome, fetched.failure);
    const entry = this.#entries.get(key);
    // Evicted already, when more keys arrived at once than the cache holds.
    const kept = entry?.rendered.token === fetched.token ? entry.rendered : undefined;
    return { ok: true, outcome, rendered: kept ?? new RenderedToken(fetched.token) };
  }

  /** Forgets every entry and hold whose key `isDropped` says so of. */
  drop(isDropped: (key: string) => boolean): void {
    for (const key of this.#entries.keys()) if (isDropped(key)) this.#entries.delete(key);
    for (const key of this.#holds.keys()) if (isDropped(key)) this.#holds.delete(key);
  }

  #fly(key: string, fetch: () => Promise<Fetched<F>>): Promise<Fetched<F>> {
    const flight = this.#land(key, fetch);
    this.#flights.set(key, flight);
    return flight;
  }

  async #land(key: string, fetch: () => Promise<Fetched<F>>): Promise<Fetched<F>> {
    try {
      const fetched = await fetch();
      if (fetched.ok) this.#keep(key, fetched.token);
      else if (fetched.failure.holdMs > 0) this.#hold(key, fetched.failure);
      return fetched;
    } finally {
      this.#flights.delete(key);
    }
  }

  #keep(key: string, token: Token): void {
    const lifeMs = token.expiresAtWallS * 1000 - this.#clock.wallMs();
    const expiresAtMs = this.#clock.monotonicMs() + lifeMs;
    this.#entries.delete(key);
    this.#entries.set(key, { rendered: new RenderedToken(token), expiresAtMs });
    evictOldest(this.#entries, this.#maxEntries);
  }

  #hold(key: string, failure: F): void {
    this.#holds.set(key, { failure, untilMs: this.#clock.monotonicMs() + failure.holdMs });
    evictOldest(this.#holds, this.#maxEntries);
  }

  #orStale(key: string, outcome: CacheOutcome, failure: F): Cached<F> {
    const entry = this.#entries.get(key);
    if (entry === undefined || this.#lifeMs(entry) <= 0) return { ok: false, outcome, failure };
    return { ok: true, outcome: 'stale', rendered: entry.rendered };
  }

  #lifeMs(entry: Entry): number {
    const byWall = entry.rendered.token.expiresAtWallS * 1000 - this.#clock.wallMs();
    return Math.min(byWall, entry.expiresAtMs - this.#clock.monotonicMs());
  }
}

function evictOldest<V>(entries: Map<string, V>, maxEntries: number): void {
  for (const key of entries.keys()) {
    if (entries.size <= maxEntries) return;
    entries.delete(key);
  }
}
