/**
 * Cached failures by key.
 *
 * 1. A failure names its own cooldown. Consecutive failures double it up to 10 s; a longer
 *    cooldown, as of a `Retry-After`, is kept as it is.
 * 2. A success resets the count of failures, and so does a pause of `forgetAfterMs`.
 * 3. Bounded: the owner with the most keys loses the one with its oldest failure.
 */
import type { Clock } from '../../base/time/clock.ts';
import { dropOfLargestOwner } from './drop-of-largest-owner.ts';

/** Part of every failure: milliseconds during which another fetch is useless. */
export interface Cooldown {
  readonly cooldownMs: number;
}

/** A request of a cache: any fields that its source needs, and a non-secret key. */
export interface Keyed {
  readonly key: string;
}

/** The last failure of a key that has not succeeded since. */
export interface Remembered<R, F> {
  readonly request: R;
  readonly failure: F;
  /** Milliseconds during which it is returned without a fetch; 0 when a fetch is allowed. */
  readonly cooldownLeftMs: number;
}

interface NegativeEntry<R, F> {
  readonly request: R;
  readonly failure: F;
  readonly failures: number;
  /** Monotonic milliseconds. */
  readonly untilMs: number;
}

const longestGrownCooldownMs = 10_000;
/** Long compared to every cooldown, short compared to the life of a token. */
const forgetAfterMs = 5 * 60_000;

export class NegativeCache<R extends Keyed, F extends Cooldown> {
  readonly #clock: Clock;
  readonly #maxKeys: number;
  readonly #ownerOf: (request: R) => string;
  /** Oldest failure first. */
  readonly #entries = new Map<string, NegativeEntry<R, F>>();

  constructor(clock: Clock, maxKeys: number, ownerOf: (request: R) => string) {
    this.#clock = clock;
    this.#maxKeys = maxKeys;
    this.#ownerOf = ownerOf;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The failure to return for `key`, or `undefined` when a fetch is allowed. */
  activeFailure(key: string): F | undefined {
    return this.cooldownLeftMs(key) > 0 ? this.#entries.get(key)?.failure : undefined;
  }

  /** The last failure of `key`, also after its cooldown. */
  lastFailure(key: string): F | undefined {
    return this.#entries.get(key)?.failure;
  }

  /** Milliseconds until a fetch for `key` is allowed; 0 for now. */
  cooldownLeftMs(key: string): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) return 0;
    return Math.max(0, entry.untilMs - this.#clock.monotonicMs());
  }

  /** All cached failures, also those after their cooldown, oldest first. */
  *all(): Iterable<Remembered<R, F>> {
    for (const [key, { request, failure }] of this.#entries) {
      yield { request, failure, cooldownLeftMs: this.cooldownLeftMs(key) };
    }
  }

  fail(request: R, failure: F): void {
    const nowMs = this.#clock.monotonicMs();
    const before = this.#entries.get(request.key);
    const isInRow = before !== undefined && nowMs - before.untilMs < forgetAfterMs;
    const failures = (isInRow ? before.failures : 0) + 1;
    this.#entries.delete(request.key);
    if (failure.cooldownMs <= 0) return;
    const grownMs = Math.min(longestGrownCooldownMs, failure.cooldownMs * 2 ** (failures - 1));
    const untilMs = nowMs + Math.max(failure.cooldownMs, grownMs);
    this.#entries.set(request.key, { request, failure, failures, untilMs });
    if (this.#entries.size > this.#maxKeys) {
      dropOfLargestOwner(this.#entries, (entry) => this.#ownerOf(entry.request));
    }
  }

  reset(key: string): void {
    this.#entries.delete(key);
  }

  drop(isDropped: (request: R) => boolean): void {
    for (const [key, { request }] of this.#entries) {
      if (isDropped(request)) this.#entries.delete(key);
    }
  }
}
