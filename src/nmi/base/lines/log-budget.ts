/**
 * Log lines that others decide the number of: the first of a kind are written at once, those beyond
 * are counted, and a minute later one line says how many there were. A pod that was refused 5,000
 * times a second had 5,000 lines written, which pushed those of all others out of the node's log.
 */
import type { Clock } from '../../../cache/clock.ts';

const periodMs = 60_000;

export interface LogBudgetOptions {
  readonly clock: Clock;
  /** Kinds that are told apart at once. Beyond, lines are counted together. */
  readonly maxKinds?: number;
  /** Lines of kinds that found no place, a minute long. */
  readonly onOthers: (count: number) => void;
}

interface Kind {
  written: number;
  left: number;
  /** Set with the first that was left out. */
  report: ((count: number) => void) | undefined;
}

export class LogBudget {
  readonly #options: LogBudgetOptions;
  readonly #maxKinds: number;
  readonly #kinds = new Map<string, Kind>();
  #others = 0;
  #isArmed = false;

  constructor(options: LogBudgetOptions) {
    this.#options = options;
    this.#maxKinds = options.maxKinds ?? 4_096;
  }

  /** Nothing is counted. */
  get isIdle(): boolean {
    return !this.#isArmed;
  }

  /**
   * @param most lines of this kind in a quiet minute. While it goes on, there is none but the report.
   * @param report is kept, and called with the number of lines that were left out, if any.
   * @returns whether the line is to be written.
   */
  allows(kind: string, most: number, report: (count: number) => void): boolean {
    const known = this.#kinds.get(kind) ?? this.#begin(kind);
    if (known === undefined) {
      this.#others += 1;
      return false;
    }
    if (known.written < most) {
      known.written += 1;
      return true;
    }
    known.left += 1;
    known.report ??= report;
    return false;
  }

  #begin(kind: string): Kind | undefined {
    if (!this.#isArmed) this.#arm();
    if (this.#kinds.size >= this.#maxKinds) return undefined;
    const begun: Kind = { written: 0, left: 0, report: undefined };
    this.#kinds.set(kind, begun);
    return begun;
  }

  #arm(): void {
    this.#isArmed = true;
    this.#options.clock.schedule(periodMs, () => this.#report());
  }

  #report(): void {
    this.#isArmed = false;
    for (const [kind, counted] of this.#kinds) {
      const { left, report } = counted;
      if (left === 0) {
        this.#kinds.delete(kind);
      } else {
        counted.left = 0;
        counted.report = undefined;
        report?.(left);
      }
    }
    const others = this.#others;
    this.#others = 0;
    if (others > 0) this.#options.onOthers(others);
    if (this.#kinds.size > 0) this.#arm();
  }
}
