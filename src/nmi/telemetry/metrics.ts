/** The only module that uses prom-client: series made from the metric table. */
import { Counter, Gauge, Registry } from 'prom-client';
import { buildInfo } from '../base/build-info.ts';
import { BoundHistogram, type Observe } from './bound-histogram.ts';
import { newMetrics, oldMetrics, type MetricRow } from './metric-table.ts';

type Name = keyof typeof oldMetrics | keyof typeof newMetrics;
type Labels = Readonly<Record<string, string>>;

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics({ oldNames = true } = {}) {
  const registry = new Registry();
  const counters = new Map<string, Counter>();
  const gauges = new Map<string, Gauge>();
  const histograms = new Map<string, BoundHistogram>();
  const rows: readonly (readonly [string, MetricRow])[] = [
    ...(oldNames ? Object.entries(oldMetrics) : []),
    ...Object.entries(newMetrics),
  ];
  for (const [name, row] of rows) {
    const shape = {
      name,
      help: row.help,
      labelNames: [...row.labels],
      registers: [registry],
    };
    switch (row.type) {
      case 'counter':
        counters.set(name, new Counter(shape));
        break;
      case 'gauge':
        gauges.set(name, new Gauge(shape));
        break;
      case 'histogram':
        histograms.set(name, new BoundHistogram({ ...shape, buckets: row.buckets ?? [] }));
        break;
    }
  }

  const totals = new Map<string, number>();
  /** A counter that the kernel has created anew begins at zero again. */
  const countTo = (counter: Counter, name: string, total: number, labels: Labels): void => {
    const key = [name, ...Object.values(labels)].join(' ');
    counter.inc(labels, Math.max(0, total - (totals.get(key) ?? 0)));
    totals.set(key, total);
  };

  gauges.get('nmi_build_info')?.set({ version: buildInfo.version, commit: buildInfo.commit }, 1);
  const fills: (() => void)[] = [];
  const contentType: string = registry.contentType;

  const observer = (name: Name, labels: Labels): Observe =>
    histograms.get(name)?.bind(labels) ?? (() => undefined);

  return {
    inc: (name: Name, labels: Labels = {}, by = 1) => counters.get(name)?.inc(labels, by),
    set: (name: Name, value: number, labels: Labels = {}) => gauges.get(name)?.set(labels, value),
    observe: (name: Name, value: number, labels: Labels = {}) => observer(name, labels)(value),
    /** For labels that are observed often: the same as `observe`, looked up once. */
    observer,
    /** A gauge's value, or the total of a counter that is kept elsewhere. @throws TypeError */
    export: (name: string, value: number, labels: Labels = {}) => {
      const counter = counters.get(name);
      const gauge = gauges.get(name);
      if (gauge !== undefined) gauge.set(labels, value);
      else if (counter !== undefined) countTo(counter, name, value, labels);
      else throw new TypeError(`the metric table has no gauge or counter ${name}`);
    },
    clear: (name: string) => gauges.get(name)?.reset(),
    onScrape: (fill: () => void) => fills.push(fill),
    render: async () => {
      for (const fill of fills) fill();
      const own = [...histograms.values()].map((histogram) => histogram.render());
      return `${await registry.metrics()}\n${own.join('\n\n')}\n`;
    },
    contentType,
  };
}
