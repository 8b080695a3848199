/** The two kinds of chart in a report: groups of bars, and lines. Pure. */
import { label, linearScale, logScale, type Scale } from './scale.ts';
import { element, picture, text } from './svg.ts';

const width = 720;
const height = 380;
const left = 64;
const right = width - 30;
const top = 56;
const bottom = height - 48;
const palette = ['#0b6bcb', '#8c8c8c', '#d98324', '#3a9d5d', '#8a4fbf', '#c23b4b', '#1f9aa0'];

export interface BarChart {
  readonly title: string;
  readonly yLabel: string;
  readonly groups: readonly string[];
  readonly bars: readonly BarSet[];
}

export interface BarSet {
  readonly name: string;
  /** One for each group; undefined leaves a gap. */
  readonly values: readonly (number | undefined)[];
}

export function renderBars(chart: BarChart): string {
  const { groups, bars } = chart;
  const most = Math.max(1, ...bars.flatMap(({ values }) => values.map((value) => value ?? 0)));
  // Room for the number above the highest bar.
  const y = linearScale(most * 1.05, bottom, top);
  const groupWidth = (right - left) / groups.length;
  const barWidth = (groupWidth * 0.8) / bars.length;
  const parts = [...yAxis(y, chart.yLabel)];
  for (const [group, name] of groups.entries()) {
    const start = left + group * groupWidth + groupWidth * 0.1;
    parts.push(text(start + groupWidth * 0.4, bottom + 18, name, { 'text-anchor': 'middle' }));
    for (const [index, { values }] of bars.entries()) {
      const value = values[group];
      if (value === undefined) continue;
      const [x, place] = [start + index * barWidth, y.place(value)];
      parts.push(
        element('rect', {
          x: x + 1,
          y: place,
          width: barWidth - 2,
          height: Math.max(0, bottom - place),
          fill: colour(index),
        }),
        text(x + barWidth / 2, place - 4, label(value), {
          'text-anchor': 'middle',
          'font-size': 10,
        }),
      );
    }
  }
  return framed(
    chart.title,
    bars.map(({ name }) => name),
    parts,
  );
}

export interface LineChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale: 'linear' | 'log';
  readonly yScale: 'linear' | 'log';
  readonly lines: readonly {
    readonly name: string;
    readonly points: readonly (readonly [x: number, y: number])[];
  }[];
  /** Default: the number itself. */
  readonly xTick?: (value: number) => string;
}

export function renderLines(chart: LineChart): string {
  const points = chart.lines.flatMap((line) => line.points);
  const x = scaleOf(
    chart.xScale,
    points.map(([value]) => value),
    left,
    right,
  );
  const y = scaleOf(
    chart.yScale,
    points.map(([, value]) => value),
    bottom,
    top,
  );
  const parts = [...yAxis(y, chart.yLabel), ...xAxis(x, chart.xLabel, chart.xTick ?? label)];
  for (const [index, line] of chart.lines.entries()) {
    const path = line.points
      .map(([px, py]) => `${x.place(px).toFixed(1)},${y.place(py).toFixed(1)}`)
      .join(' ');
    const stroke = colour(index);
    parts.push(element('polyline', { points: path, fill: 'none', stroke, 'stroke-width': 2 }));
    // A long line is drawn without markers.
    if (line.points.length > 24) continue;
    for (const [px, py] of line.points) {
      parts.push(element('circle', { cx: x.place(px), cy: y.place(py), r: 3, fill: stroke }));
    }
  }
  return framed(
    chart.title,
    chart.lines.map(({ name }) => name),
    parts,
  );
}

function scaleOf(kind: 'linear' | 'log', values: readonly number[], from: number, to: number) {
  const most = Math.max(...values, 0);
  if (kind === 'linear') return linearScale(most, from, to);
  const above = values.filter((value) => value > 0);
  return logScale(Math.min(...above, most), most, from, to);
}

function yAxis(scale: Scale, name: string): readonly string[] {
  const lines = scale.ticks.flatMap((tick) => {
    const y = scale.place(tick);
    return [
      element('line', { x1: left, x2: right, y1: y, y2: y, stroke: '#e3e3e3' }),
      text(left - 8, y + 4, label(tick), { 'text-anchor': 'end' }),
    ];
  });
  return [...lines, text(8, top - 12, name, { fill: '#666' })];
}

function xAxis(scale: Scale, name: string, tickName: (value: number) => string) {
  const lines = scale.ticks.map((tick) =>
    text(scale.place(tick), bottom + 18, tickName(tick), { 'text-anchor': 'middle' }),
  );
  const middle = (left + right) / 2;
  return [...lines, text(middle, height - 10, name, { 'text-anchor': 'middle', fill: '#666' })];
}

function framed(title: string, names: readonly string[], parts: readonly string[]): string {
  const legend: string[] = [];
  let x = right;
  for (const [index, name] of [...names.entries()].reverse()) {
    x -= 20 + name.length * 7.4;
    legend.push(
      element('rect', { x, y: top - 23, width: 10, height: 10, fill: colour(index) }),
      text(x + 14, top - 14, name),
    );
  }
  const heading = text(8, 20, title, { 'font-size': 15, 'font-weight': 600 });
  return picture(width, height, title, [heading, ...legend, ...parts]);
}

function colour(index: number): string {
  return palette[index % palette.length] ?? '#333';
}
