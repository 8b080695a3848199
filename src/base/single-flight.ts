/**
 * At most one call per key at a time. A waiter that leaves early does not cancel the call: its
 * result serves the others. So the call needs its own timeout.
 */
import { untilAborted } from './time/deadline.ts';

export class SingleFlight<T> {
  readonly #calls = new Map<string, Promise<T>>();

  has(key: string): boolean {
    return this.#calls.has(key);
  }

  /**
   * Waits for the running call of the key, or begins one. Rejects with the call's error, or with
   * the signal's reason as soon as the signal aborts.
   */
  share(key: string, begin: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const call = this.#calls.get(key) ?? this.#begin(key, begin);
    return signal === undefined ? call : untilAborted(signal, call);
  }

  #begin(key: string, begin: () => Promise<T>): Promise<T> {
    const call = begin().finally(() => this.#calls.delete(key));
    this.#calls.set(key, call);
    return call;
  }
}
