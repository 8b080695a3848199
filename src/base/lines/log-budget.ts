/**
 * Limits log lines that a pod can cause in any number: the first lines of a kind are written at
 * once, the others are counted, and a minute later one line reports their number. Without it, a pod
 * that was refused 5,000 times a second caused 5,000 lines, which rotated the lines of all others
 * out of the node's log.
 */
import type { Clock } from '../time/clock.ts';

const periodMs = 60_000;
/** Of one report; a last one stands for all others. */
const maxDetails = 16;

/** Takes the number of omitted lines, and what they were about. */
export type ReportOmitted = (count: number, details: readonly string[]) => void;

export interface LogBudgetOptions {
  readonly clock: Clock;
  /** Most kinds that are counted separately. Lines of further kinds are counted together. */
  readonly maxKinds?: number;
  /** Most lines of all kinds in a minute, besides the first one of each kind. */
  readonly maxLines?: number;
  /** Called after a minute with the lines of further kinds. */
  readonly onOthers: ReportOmitted;
}

interface Kind {
  written: number;
  readonly omitted: Omitted;
  /** Set with the first omitted line. */
  report: ReportOmitted | undefined;
}

class Omitted {
  count = 0;
  #details: Set<string> | undefined;

  add(detail: string): void {
    this.count += 1;
    if (detail === '') return;
    const details = (this.#details ??= new Set());
    details.add(details.size < maxDetails ? detail : 'others');
  }

  take(report: ReportOmitted | undefined): void {
    const { count } = this;
    const details = [...(this.#details ?? [])];
    this.count = 0;
    this.#details = undefined;
    report?.(count, details);
  }
}

export class LogBudget {
  readonly #options: Required<LogBudgetOptions>;
  readonly #kinds = new Map<string, Kind>();
  readonly #others = new Omitted();
  #isArmed = false;
  /** Lines in this minute that were not the first of their kind. */
  #further = 0;

  constructor(options: LogBudgetOptions) {
    this.#options = { maxKinds: 4_096, maxLines: Infinity, ...options };
  }

  /** Nothing is counted. */
  get isIdle(): boolean {
    return !this.#isArmed;
  }

  /**
   * @param most lines of this kind in a minute. A kind that goes on gets only its report in later
   * minutes.
   * @param report stored, and called if there are omitted lines.
   * @param detail what differs between lines of this kind, for the report.
   * @returns whether to write the line.
   */
  allows(kind: string, most: number, report: ReportOmitted, detail = ''): boolean {
    const known = this.#kinds.get(kind) ?? this.#begin(kind);
    if (known === undefined) {
      this.#others.add(detail);
      return false;
    }
    if (known.written < most && (known.written === 0 || this.#further < this.#options.maxLines)) {
      if (known.written > 0) this.#further += 1;
      known.written += 1;
      return true;
    }
    known.omitted.add(detail);
    known.report ??= report;
    return false;
  }

  #begin(kind: string): Kind | undefined {
    if (!this.#isArmed) this.#arm();
    if (this.#kinds.size >= this.#options.maxKinds) return undefined;
    const begun: Kind = { written: 0, omitted: new Omitted(), report: undefined };
    this.#kinds.set(kind, begun);
    return begun;
  }

  #arm(): void {
    this.#isArmed = true;
    this.#options.clock.schedule(periodMs, () => this.#report());
  }

  #report(): void {
    this.#isArmed = false;
    this.#further = 0;
    for (const [kind, counted] of this.#kinds) {
      const { omitted, report } = counted;
      if (omitted.count === 0) {
        this.#kinds.delete(kind);
      } else {
        counted.report = undefined;
        omitted.take(report);
      }
    }
    if (this.#others.count > 0) this.#others.take(this.#options.onOthers);
    if (this.#kinds.size > 0) this.#arm();
  }
}
