/**
 * One call per key at a time. It belongs to nobody who waits: one that leaves early does not end
 * it, and what it brings serves the rest. So it needs a time limit of its own.
 */
import { untilAborted } from './deadline.ts';

export class SingleFlight<T> {
  readonly #calls = new Map<string, Promise<T>>();

  has(key: string): boolean {
    return this.#calls.has(key);
  }

  /**
   * Joins the call under way for the key, or begins one. Rejects with what the call rejects with,
   * or with the signal's reason as soon as that aborts.
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
