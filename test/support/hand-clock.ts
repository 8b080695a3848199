import type { Clock } from '../../src/base/time/clock.ts';

interface Deadline {
  readonly atMs: number;
  readonly work: () => void;
}

const maxRunsPerAdvance = 100_000;

/** A clock that a test moves. Between moves, both of its times stand still. */
export class HandClock implements Clock {
  #wallMs: number;
  #monotonicMs = 0;
  /** In the order in which they were armed, which breaks ties between equal times. */
  readonly #deadlines = new Set<Deadline>();

  constructor(wallMs: number = Date.UTC(2026, 0, 1)) {
    this.#wallMs = wallMs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  schedule(delayMs: number, work: () => void): () => void {
    const deadline = { atMs: this.#monotonicMs + Math.max(0, delayMs), work };
    this.#deadlines.add(deadline);
    return () => {
      this.#deadlines.delete(deadline);
    };
  }

  /** Milliseconds from now until each piece of work that is still armed, soonest first. */
  get armed(): readonly number[] {
    const delays = Array.from(this.#deadlines, ({ atMs }) => atMs - this.#monotonicMs);
    return delays.sort((a, b) => a - b);
  }

  /**
   * Lets `ms` pass. Due work runs in order of time, each piece at its due time, and so does work
   * that it arms within these `ms`. An exception ends the advance at that time.
   */
  advance(ms: number): void {
    const endMs = this.#monotonicMs + ms;
    for (let run = 0; ; run++) {
      const next = this.#nextBy(endMs);
      if (next === undefined) break;
      if (run === maxRunsPerAdvance) throw new Error('work arms itself again without end');
      this.#deadlines.delete(next);
      this.#moveTo(next.atMs);
      next.work();
    }
    this.#moveTo(endMs);
  }

  /** Moves only the wall clock, forward or back, as a time daemon would. */
  jumpWall(ms: number): void {
    this.#wallMs += ms;
  }

  #nextBy(endMs: number): Deadline | undefined {
    let next: Deadline | undefined;
    for (const deadline of this.#deadlines) {
      if (deadline.atMs > endMs) continue;
      if (next === undefined || deadline.atMs < next.atMs) next = deadline;
    }
    return next;
  }

  #moveTo(monotonicMs: number): void {
    if (monotonicMs <= this.#monotonicMs) return;
    this.#wallMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }
}
