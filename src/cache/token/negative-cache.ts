/**
 * Failures that are remembered, each for its own key alone.
 *
 * 1. A failure is held as long as it says itself. Failures in a row double the hold up to ten
 *    seconds; one that asks for more than that, as a `Retry-After` may, gets what it asks for.
 * 2. A success ends the row, and so does a pause in which nobody asked.
 * 3. Bounded: the key that failed longest ago is forgotten first.
 */
import type { Clock } from '../clock.ts';

/** What every failure tells: how long asking again for the same is useless, in milliseconds. */
export interface Cooldown {
  readonly cooldownMs: number;
}

/** What a cache is asked for: whatever its source needs, under one non-secret key. */
export interface Keyed {
  readonly key: string;
}

/** The last failure of a key that has not succeeded since. */
export interface Remembered<R, F> {
  readonly request: R;
  readonly failure: F;
  /** Milliseconds during which it answers; 0 when the upstream may be asked. */
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
/** Long against every hold and short against the life of a token. */
const forgetAfterMs = 5 * 60_000;

export class NegativeCache<R extends Keyed, F extends Cooldown> {
  readonly #clock: Clock;
  readonly #maxKeys: number;
  /** In order of the last failure. */
  readonly #entries = new Map<string, NegativeEntry<R, F>>();

  constructor(clock: Clock, maxKeys: number) {
    this.#clock = clock;
    this.#maxKeys = maxKeys;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The failure that answers for `key` now, or `undefined` when the upstream may be asked. */
  activeFailure(key: string): F | undefined {
    return this.cooldownLeftMs(key) > 0 ? this.#entries.get(key)?.failure : undefined;
  }

  /** Milliseconds until the upstream may be asked for `key` again; 0 for now. */
  cooldownLeftMs(key: string): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) return 0;
    return Math.max(0, entry.untilMs - this.#clock.monotonicMs());
  }

  /** What is remembered, held or no longer, in order of the last failure. */
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
    for (const key of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxKeys) return;
      this.#entries.delete(key);
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
