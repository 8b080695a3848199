/**
 * Limits log lines that a pod can cause in any number: the first lines of a kind are written at
 * once, the others are counted, and a minute later one line reports their number. Without it, a pod
 * that was refused 5,000 times a second caused 5,000 lines, which rotated the lines of all others
 * out of the node's log.
 */
import type { Clock } from '../time/clock.ts';

const periodMs = 60_000;

export interface LogBudgetOptions {
  readonly clock: Clock;
  /** Most kinds that are counted separately. Lines of further kinds are counted together. */
  readonly maxKinds?: number;
  /** Called after a minute with the lines of further kinds. */
  readonly onOthers: (count: number) => void;
}

interface Kind {
  written: number;
  left: number;
  /** Set with the first omitted line. */
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
   * @param most lines of this kind in a minute. A kind that goes on gets only its report in later
   * minutes.
   * @param report stored, and called with the number of omitted lines, if any.
   * @returns whether to write the line.
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
