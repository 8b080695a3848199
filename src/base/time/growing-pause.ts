/**
 * Limits work that any pod can request at any rate: the pause doubles while requests continue, and
 * is reset when they have stopped for a while.
 */
import type { Clock } from './clock.ts';

export class GrowingPause {
  readonly #clock: Clock;
  readonly #shortestMs: number;
  readonly #longestMs: number;
  #pauseMs = 0;
  #takenAtMs = -Infinity;

  constructor(clock: Clock, shortestMs: number, longestMs: number) {
    this.#clock = clock;
    this.#shortestMs = shortestMs;
    this.#longestMs = longestMs;
  }

  /** Returns whether the work may run now; if so, the pause begins. */
  take(): boolean {
    const nowMs = this.#clock.monotonicMs();
    const sinceMs = nowMs - this.#takenAtMs;
    if (sinceMs < this.#pauseMs) return false;
    const isInRow = sinceMs < 2 * this.#pauseMs;
    this.#pauseMs = isInRow ? Math.min(this.#longestMs, 2 * this.#pauseMs) : this.#shortestMs;
    this.#takenAtMs = nowMs;
    return true;
  }
}
