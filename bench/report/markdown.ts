/** Tables of a result, as Markdown. Pure. */
import { Histogram } from '../core/histogram.ts';
import { isPaced, type Figure, type ScenarioResult, type Series } from '../core/results.ts';
import { median, ratiosOf, spreadOf } from '../core/statistics.ts';

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Values of one subject, by round. */
export const measures = {
  perSec: (series: Series) => series.rounds.map(({ perSec }) => perSec),
  p50Us: (series: Series) => series.rounds.map(({ latency }) => percentile(latency, 0.5)),
  p99Us: (series: Series) => series.rounds.map(({ latency }) => percentile(latency, 0.99)),
  p999Us: (series: Series) => series.rounds.map(({ latency }) => percentile(latency, 0.999)),
  cpuMs: (series: Series) => series.rounds.map(({ cpuMsPer1000 }) => cpuMsPer1000 ?? NaN),
} as const;

function percentile(latency: Parameters<typeof Histogram.from>[0], share: number): number {
  return Histogram.from(latency).percentileUs(share);
}

/** Median, range, and whether the rounds disagree. */
export function renderSpread(values: readonly number[]): string {
  const { median: middle, min, max, isNoisy } = spreadOf(values);
  if (Number.isNaN(middle)) return '';
  if (values.length === 1) return renderNumber(middle);
  const range = `${renderNumber(min)}–${renderNumber(max)}`;
  return `${renderNumber(middle)} (${range})${isNoisy ? ' noisy' : ''}`;
}

/** Three significant digits. */
export function renderNumber(value: number): string {
  if (Number.isNaN(value)) return '';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

/** Columns of each subject, and of its ratios to the control. */
const columns = [
  { title: 'answers/s', ratio: 'throughput', measure: measures.perSec },
  { title: 'p50 µs', ratio: 'p50', measure: measures.p50Us },
  { title: 'p99 µs', ratio: 'p99', measure: measures.p99Us },
  { title: 'p99.9 µs', ratio: 'p99.9', measure: measures.p999Us },
  { title: 'CPU ms/1,000', ratio: 'CPU', measure: measures.cpuMs },
] as const;

export function seriesTable(scenario: ScenarioResult): string {
  const { series, control } = scenario;
  const rows = series.map((each) => {
    const other = series.find(({ subject, shape }) => subject === control && shape === each.shape);
    const ratio = (measure: (of: Series) => readonly number[]) =>
      other === undefined || other === each
        ? ''
        : renderSpread(ratiosOf(measure(each), measure(other)));
    return [
      each.shape,
      each.subject,
      ...columns.map(({ measure }) => renderNumber(median(measure(each)))),
      ...columns.map(({ measure }) => ratio(measure)),
    ];
  });
  const head = ['connections', 'subject', ...columns.map(({ title }) => title)];
  const ratios = columns.map(({ ratio }) => `${ratio} ratio`);
  if (control !== undefined) return table([...head, ...ratios], rows);
  return table(
    head,
    rows.map((row) => row.slice(0, head.length)),
  );
}

/** Other load on the machine during the scenario. */
export function servicesOf({ othersCores, isNotAlone }: ScenarioResult): string {
  const others =
    othersCores === undefined ? '' : `; others used ${othersCores} processors meanwhile`;
  return `${others}${isNotAlone === true ? '; **NOT ALONE ON THE MACHINE**' : ''}`;
}

/** Above this share of its core the load program may be the bottleneck. */
const busyShare = 0.8;

/** Subjects for which the load program's core was nearly saturated. */
export function busiestLoads(scenario: ScenarioResult): string {
  const { control } = scenario;
  const busy = scenario.series.filter(
    ({ shape, rounds }) =>
      !isPaced(shape) && median(rounds.map(({ loadCpuShare }) => loadCpuShare)) > busyShare,
  );
  if (busy.length === 0) return '';
  const names = busy.map(({ subject, shape }) => `${subject} at ${shape}`).join(', ');
  const warning = `The load program used more than ${busyShare * 100} % of its core, so that these could be faster: ${names}.`;
  // A throttled control makes the subject look better than it is.
  const capped = distinct(busy.filter(({ subject }) => subject === control));
  if (capped.length === 0) return warning;
  return `${warning} The control is one of them (${capped.join(', ')}): ratios to it would be worse, but for those of CPU.`;
}

function distinct(series: readonly Series[]): readonly string[] {
  return [...new Set(series.map(({ shape }) => shape))];
}

export function figureTable(figures: readonly Figure[]): string {
  return table(
    ['what', 'measured', 'unit'],
    figures.map(({ name, unit, values }) => [name, renderSpread(values), unit]),
  );
}
