/** The two kinds of chart in a report: groups of bars, and lines. Pure. */
import type { CurveSpan } from '../core/results.ts';
import { colorOf } from './colors.ts';
import { label, linearScale, logScale, type Scale } from './scale.ts';
import { element, picture, text, textWidth } from './svg.ts';

const width = 720;
const height = 380;
const left = 64;
const right = width - 30;
const top = 56;
const bottom = height - 48;
const numberSize = 10;

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
  const values = bars.flatMap((set) => set.values.flatMap((value) => value ?? []));
  const groupWidth = (right - left) / groups.length;
  const most = Math.max(...groups.map((_, group) => barsIn(chart, group).length), 1);
  const barWidth = (groupWidth * 0.84) / most;
  const longest = Math.max(...values.map((value) => textWidth(label(value), numberSize)), 0);
  const isTurned = longest + 4 > barWidth;
  const numberRoom = (isTurned ? longest : numberSize) + 8;
  const y = linearScale(Math.max(1, ...values), bottom, top + numberRoom);
  const shapes: string[] = [];
  // After the bars, so that none covers a number.
  const numbers: string[] = [];
  for (const [group, name] of groups.entries()) {
    const middle = left + (group + 0.5) * groupWidth;
    const present = barsIn(chart, group);
    const start = middle - (present.length * barWidth) / 2;
    numbers.push(text(middle, bottom + 18, name, { 'text-anchor': 'middle' }));
    for (const [index, bar] of present.entries()) {
      const [x, place] = [start + index * barWidth, y.place(bar.value)];
      const size = { width: barWidth - 2, height: Math.max(0, bottom - place) };
      shapes.push(element('rect', { x: x + 1, y: place, ...size, fill: colorOf(bar.name) }));
      numbers.push(renderNumber(label(bar.value), x + barWidth / 2, place - 4, isTurned));
    }
  }
  const names = bars.map(({ name }) => name);
  return framed(chart.title, names, [...yAxis(y, chart.yLabel), ...shapes, ...numbers]);
}

/** What was measured, in order. */
function barsIn({ bars }: BarChart, group: number) {
  return bars.flatMap(({ name, values }) => {
    const value = values[group];
    return value === undefined ? [] : [{ name, value }];
  });
}

/** Above a bar; turned where bars are narrower than their numbers. */
function renderNumber(number: string, x: number, y: number, isTurned: boolean): string {
  const size = { 'font-size': numberSize };
  if (!isTurned) return text(x, y, number, { ...size, 'text-anchor': 'middle' });
  // A turned line of text has its baseline at its right.
  const baseline = Math.round(x + numberSize * 0.36);
  return text(baseline, y, number, {
    ...size,
    transform: `rotate(-90 ${baseline} ${Math.round(y)})`,
  });
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
  readonly spans?: readonly CurveSpan[];
  /** Default: the number itself. */
  readonly xTick?: (value: number) => string;
}

export function renderLines(chart: LineChart): string {
  const points = chart.lines.flatMap((line) => line.points);
  const xs = points.map(([value]) => value);
  const ys = points.map(([, value]) => value);
  const x =
    chart.xScale === 'log'
      ? scaleOfLog(xs, left, right)
      : linearScale(Math.max(...xs, 0), left, right, true);
  const y =
    chart.yScale === 'log'
      ? scaleOfLog(ys, bottom, top)
      : linearScale(Math.max(...ys, 0), bottom, top);
  const parts = (chart.spans ?? []).flatMap((span) => renderSpan(span, x));
  parts.push(...yAxis(y, chart.yLabel), ...xAxis(x, chart.xLabel, chart.xTick ?? label));
  for (const line of chart.lines) {
    const path = line.points
      .map(([px, py]) => `${x.place(px).toFixed(1)},${y.place(py).toFixed(1)}`)
      .join(' ');
    const stroke = colorOf(line.name);
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

function scaleOfLog(values: readonly number[], from: number, to: number): Scale {
  const most = Math.max(...values, 0);
  return logScale(Math.min(...values.filter((value) => value > 0), most), most, from, to);
}

/** Shaded over the whole height, with what it means. */
function renderSpan({ name, from, to }: CurveSpan, x: Scale): readonly string[] {
  const [start, end] = [x.place(from), x.place(to)];
  const size = { width: end - start, height: bottom - top };
  return [
    element('rect', { x: start, y: top, ...size, fill: '#fbe6c8' }),
    text(start + 6, top + 16, name, { fill: '#8a5a00' }),
  ];
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
  for (const name of names.toReversed()) {
    x -= 22 + textWidth(name, 12);
    legend.push(
      element('rect', { x, y: top - 23, width: 10, height: 10, fill: colorOf(name) }),
      text(x + 14, top - 14, name),
    );
  }
  const widthAt1 = textWidth(title, 1, true);
  const size = Math.min(15, Math.floor((width - 16) / widthAt1));
  const heading = text(8, 20, title, { 'font-size': size, 'font-weight': 600 });
  return picture(width, height, title, [heading, ...legend, ...parts]);
}
