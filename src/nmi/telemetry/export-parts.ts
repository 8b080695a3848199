/** Reads the states and totals of the parts at every scrape. */
import type { Part } from '../base/part.ts';
import type { Metrics } from './metrics.ts';

/** A sample that a part no longer returns is removed from the page, too. */
export function exportParts(metrics: Metrics, parts: readonly Part[]): void {
  const exported = new Set<string>();
  metrics.onScrape(() => {
    for (const metric of exported) metrics.clear(metric);
    for (const part of parts) {
      for (const { metric, labels, value } of part.samples?.() ?? []) {
        metrics.export(metric, value, labels);
        exported.add(metric);
      }
      for (const { name, problem } of part.conditions ?? []) {
        metrics.set('nmi_ready', problem() === undefined ? 1 : 0, { condition: name });
        exported.add('nmi_ready');
      }
    }
  });
}
