/**
 * Values that expire, each at its own time: at most `max`, with LRU eviction. An expired value is
 * removed from memory by a timer, since some values are secret.
 */
import type { Clock } from './time/clock.ts';
import { TimerQueue, type QueuedTimer } from './time/timer-queue.ts';

interface Entry<V> extends QueuedTimer {
  readonly value: V;
}

/** Empty and without a timer after its disposal. */
export class ExpiringMap<V> implements Disposable {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #alarms: TimerQueue;
  /** Least recently used first. */
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

  /** @param lifeMs from now; by default the value stays until its eviction. */
  set(key: string, value: V, lifeMs = Infinity): void {
    this.delete(key);
    if (this.#isDisposed || lifeMs <= 0) return;
    const fire = (): void => {
      this.#entries.delete(key);
    };
    const entry: Entry<V> = { value, fire, dueAtMs: Infinity, disarm: undefined };
    this.#entries.set(key, entry);
    if (lifeMs !== Infinity) this.#alarms.set(entry, lifeMs);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > this.#max && oldest !== undefined) this.delete(oldest);
  }

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
