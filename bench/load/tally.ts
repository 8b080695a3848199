/** Counters of a running load. Pure; time is passed in. */
import { Histogram } from '../core/histogram.ts';
import type { TimelinePiece } from './plan.ts';

interface Piece {
  readonly latency: Histogram;
  failures: number;
}

export class Tally {
  readonly latency = new Histogram();
  failures = 0;
  foreign = 0;
  firstFailure: string | undefined;
  readonly #fromMs: number;
  readonly #untilMs: number;
  readonly #pieceMs: number | undefined;
  readonly #pieces: Piece[] = [];

  /** Counts requests that were due from `fromMs` and before `untilMs`. */
  constructor(fromMs: number, untilMs: number, pieceMs: number | undefined) {
    this.#fromMs = fromMs;
    this.#untilMs = untilMs;
    this.#pieceMs = pieceMs;
  }

  right(dueAtMs: number, nowMs: number): void {
    if (!this.#counts(dueAtMs)) return;
    this.latency.recordMs(nowMs - dueAtMs);
    this.#piece(dueAtMs)?.latency.recordMs(nowMs - dueAtMs);
  }

  /** A token of another identity counts at any time. */
  wrong(dueAtMs: number, why: string, isForeign: boolean): void {
    if (isForeign) this.foreign += 1;
    if (!this.#counts(dueAtMs)) return;
    this.failures += 1;
    this.firstFailure ??= why;
    const piece = this.#piece(dueAtMs);
    if (piece !== undefined) piece.failures += 1;
  }

  timeline(): readonly TimelinePiece[] {
    return Array.from(this.#pieces, (piece, index) => ({
      atMs: index * (this.#pieceMs ?? 0),
      answers: piece?.latency.count ?? 0,
      failures: piece?.failures ?? 0,
      p50Us: piece?.latency.percentileUs(0.5) ?? 0,
      maxUs: piece?.latency.maxUs ?? 0,
    }));
  }

  #counts(dueAtMs: number): boolean {
    return dueAtMs >= this.#fromMs && dueAtMs < this.#untilMs;
  }

  #piece(dueAtMs: number): Piece | undefined {
    if (this.#pieceMs === undefined) return undefined;
    const index = Math.floor((dueAtMs - this.#fromMs) / this.#pieceMs);
    return (this.#pieces[index] ??= { latency: new Histogram(), failures: 0 });
  }
}
