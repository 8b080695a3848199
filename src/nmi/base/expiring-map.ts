/**
 * Values in memory, each for a time of its own: at most `max`, least recently used out first. What
 * has expired is not only not returned but leaves memory, since some of it is secret.
 */
import type { Clock } from '../../cache/clock.ts';
import { TimerQueue, type QueuedTimer } from '../../cache/token/timer-queue.ts';

interface Entry<V> extends QueuedTimer {
  readonly value: V;
}

/** Nothing is in it, and nothing armed, after its disposal. */
export class ExpiringMap<V> implements Disposable {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #alarms: TimerQueue;
  /** In order of the last use. */
  readonly #entries = new Map<string, Entry<V>>();
  #isDisposed = false;

  constructor(clock: Clock, max: number) {
    this.#clock = clock;
    this.#max = max;
    this.#alarms = new TimerQueue(clock);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Counts as a use. */
  get(key: string): V | undefined {
    const entry = this.#entries.get(key);
    // The timer may be late.
    if (entry === undefined || entry.dueAtMs <= this.#clock.monotonicMs()) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  /** @param lifeMs from now; without it the value stays until there is no room. */
  set(key: string, value: V, lifeMs = Infinity): void {
    this.delete(key);
    if (this.#isDisposed || lifeMs <= 0) return;
    const fire = (): void => {
      this.#entries.delete(key);
    };
    const entry: Entry<V> = { value, fire, dueAtMs: Infinity, heapIndex: -1 };
    this.#entries.set(key, entry);
    if (lifeMs !== Infinity) this.#alarms.set(entry, lifeMs);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > this.#max && oldest !== undefined) this.delete(oldest);
  }

  /** @returns whether it was there. */
  delete(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#alarms.clear(entry);
    return this.#entries.delete(key);
  }

  deleteWhere(isDeleted: (value: V) => boolean): void {
    for (const [key, { value }] of this.#entries) if (isDeleted(value)) this.delete(key);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#entries.clear();
    this.#alarms[Symbol.dispose]();
  }
}
