/**
 * What a long-lived part of the agent shows of itself. The agent collects it from every part, so a
 * new condition or gauge is written in the part it describes and nowhere else.
 */
import type { Condition } from './readiness.ts';

/** One series at a scrape: a gauge's value, or a counter's total since the part began. */
export interface Sample {
  /** A name of the metric table. */
  readonly metric: `nmi_${string}`;
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Part {
  readonly conditions?: readonly Condition[];
  /** Lines for `/readyz?verbose`: how this part is, ready or not. */
  details?(): readonly string[];
  /** Read at each scrape; cheap, and must not throw. */
  samples?(): readonly Sample[];
}
