/** Counters that are kept elsewhere, as totals: the page's own are brought up to them at a scrape. */
import type { Metrics } from './metrics.ts';

type CountedElsewhere =
  | 'nmi_watch_relists_total'
  | 'nmi_watch_errors_total'
  | 'nmi_ebpf_connects_total'
  | 'nmi_redirect_caught_total';

export type CountUp = (
  name: CountedElsewhere,
  labels: Readonly<Record<string, string>>,
  total: number,
) => void;

export function createCountUp(metrics: Metrics): CountUp {
  const counted = new Map<string, number>();
  return (name, labels, total) => {
    const key = [name, ...Object.values(labels)].join(' ');
    // What was made anew in the kernel begins at nought again.
    metrics.inc(name, labels, Math.max(0, total - (counted.get(key) ?? 0)));
    counted.set(key, total);
  };
}
