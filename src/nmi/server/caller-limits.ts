/**
 * Limits per caller: its in-flight fetches, and its requests that wait for a token or an object.
 * Beyond a limit the caller gets a 429, and other callers are not affected. A request that joins an
 * in-flight fetch of its caller adds no fetch but a waiter, and waiters are limited for the whole
 * node, too.
 */
import { Counts } from '../../base/counts.ts';

export interface CallerMaxima {
  /** Different tokens one caller may wait for at the same time. */
  readonly fetches: number;
  /** Requests of one caller that may wait for tokens, the same or different ones. */
  readonly waiting: number;
  /** Requests of one caller that may wait for an object at the same time. */
  readonly pendingObjects: number;
}

/** A caller, given by its limit key, has reached a limit. */
export type OnBeyond = (limitKey: string, limit: keyof CallerMaxima | 'resources') => void;

/** Each `begin` returns the function to call at the end, or undefined at the limit. */
export class CallerLimits {
  readonly #max: CallerMaxima;
  readonly #onBeyond: OnBeyond;
  readonly #fetches = new Counts();
  readonly #waiting = new Counts();
  readonly #pendingObjects = new Counts();
  /** Requests by caller and token. */
  readonly #sharing = new Counts();

  constructor(max: CallerMaxima, onBeyond: OnBeyond = () => undefined) {
    this.#max = max;
    this.#onBeyond = onBeyond;
  }

  beginFetch(limitKey: string, token: string): (() => void) | undefined {
    const fetch = `${limitKey}\n${token}`;
    const isNew = this.#sharing.get(fetch) === 0;
    if (this.#waiting.get(limitKey) >= this.#max.waiting) return this.#refuse(limitKey, 'waiting');
    if (isNew && this.#fetches.get(limitKey) >= this.#max.fetches) {
      return this.#refuse(limitKey, 'fetches');
    }
    this.#waiting.add(limitKey);
    this.#sharing.add(fetch);
    if (isNew) this.#fetches.add(limitKey);
    return () => {
      this.#waiting.remove(limitKey);
      this.#sharing.remove(fetch);
      if (this.#sharing.get(fetch) === 0) this.#fetches.remove(limitKey);
    };
  }

  beginWait(limitKey: string): (() => void) | undefined {
    const counts = this.#pendingObjects;
    if (counts.get(limitKey) >= this.#max.pendingObjects) {
      return this.#refuse(limitKey, 'pendingObjects');
    }
    counts.add(limitKey);
    return () => counts.remove(limitKey);
  }

  #refuse(limitKey: string, limit: keyof CallerMaxima): undefined {
    this.#onBeyond(limitKey, limit);
  }
}

const maxRated = 1_024;

/** Finds callers that do something more often than `perSec` after `burst` at once. */
export class CallerRates {
  readonly #intervalMs: number;
  readonly #burstMs: number;
  readonly #nowMs: () => number;
  /** When what a caller did so far is paid for, one interval each. */
  readonly #paidAtMs = new Map<string, number>();

  constructor(perSec: number, burst: number, nowMs: () => number) {
    this.#intervalMs = 1_000 / perSec;
    this.#burstMs = burst * this.#intervalMs;
    this.#nowMs = nowMs;
  }

  /** @returns whether this time is beyond the rate. */
  isBeyond(limitKey: string): boolean {
    const nowMs = this.#nowMs();
    const paidAtMs = Math.max(nowMs, this.#paidAtMs.get(limitKey) ?? 0);
    if (paidAtMs >= nowMs + this.#burstMs) return true;
    if (this.#paidAtMs.size >= maxRated) this.#forget(nowMs);
    if (this.#paidAtMs.size < maxRated) this.#paidAtMs.set(limitKey, paidAtMs + this.#intervalMs);
    return false;
  }

  /** A caller that has paid is as one that is new. */
  #forget(nowMs: number): void {
    for (const [key, paidAtMs] of this.#paidAtMs) if (paidAtMs <= nowMs) this.#paidAtMs.delete(key);
  }
}
