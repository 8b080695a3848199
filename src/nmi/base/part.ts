/**
 * Conditions and metrics of a long-lived part of the agent. The agent collects them from every
 * part, so a new condition or gauge is defined in its own part and nowhere else.
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
  /** Read at each scrape; cheap, and must not throw. */
  samples?(): readonly Sample[];
}

/** One sample for each value, whose name is that of a label. */
export function samplesBy(
  metric: Sample['metric'],
  label: string,
  values: Readonly<Record<string, number | bigint>>,
  labels: Sample['labels'] = {},
): readonly Sample[] {
  return Object.entries(values).map(([name, value]) => ({
    metric,
    labels: { ...labels, [label]: name },
    value: Number(value),
  }));
}
