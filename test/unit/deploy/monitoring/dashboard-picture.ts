/** A Grafana dashboard as one picture, with the panels at their Grafana positions. Pure. */
import { linearScale, type Scale } from '../../../../bench/report/scale.ts';
import { element, picture, text, textWidth } from '../../../../bench/report/svg.ts';

export interface PanelLine {
  readonly name: string;
  /** Seconds since the beginning, and the value; in order. */
  readonly points: readonly (readonly [atS: number, value: number])[];
}

export interface DrawnPanel {
  readonly title: string;
  readonly type: string;
  /** Grafana's name for it. */
  readonly unit: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly lines: readonly PanelLine[];
}

const columnPx = 42;
const rowPx = 24;
const gapPx = 6;
const nameSize = 9;
const nameLinePx = 13;
const maxNameLines = 2;
/** Values come every two seconds. */
const longestGapS = 3;
const palette = [
  ...['#0b6bcb', '#3a9d5d', '#d98324', '#c23b4b', '#8a4fbf', '#1f9aa0', '#8c8c8c', '#d668a8'],
  ...['#1f2f6b', '#96641e', '#9ccc3c', '#5f7282'],
];

/** @param seconds length of the time axis. */
export function renderDashboard(
  title: string,
  panels: readonly DrawnPanel[],
  seconds: number,
): string {
  const rows = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const parts = panels.map((panel) => renderPanel(panel, seconds));
  return picture(24 * columnPx + gapPx, rows * rowPx + gapPx, title, parts);
}

function renderPanel(panel: DrawnPanel, seconds: number): string {
  const { x, y, w, h } = panel.gridPos;
  const place = { transform: `translate(${x * columnPx + gapPx} ${y * rowPx + gapPx})` };
  if (panel.type === 'row') {
    return element('g', place, text(2, 14, `▾ ${panel.title}`, { 'font-weight': 600 }));
  }
  const [width, height] = [w * columnPx - gapPx, h * rowPx - gapPx];
  const frame = { width, height, rx: 3, fill: '#fff', stroke: '#d4d4d4' };
  const body =
    panel.type === 'stat'
      ? renderStat(panel, width, height)
      : renderLines(panel, width, height, seconds);
  return element(
    'g',
    place,
    element('rect', frame),
    text(8, 16, panel.title, { 'font-weight': 600, 'font-size': 11 }),
    ...body,
  );
}

function renderStat({ lines, unit }: DrawnPanel, width: number, height: number): readonly string[] {
  const value = lines[0]?.points.at(-1)?.[1];
  const shown = value === undefined ? 'no data' : formatValue(value, unit);
  const style = { 'text-anchor': 'middle', 'font-size': 28, fill: '#0b6bcb' };
  return [text(width / 2, height / 2 + 16, shown, style)];
}

function renderLines(
  { lines, unit }: DrawnPanel,
  width: number,
  height: number,
  seconds: number,
): readonly string[] {
  if (lines.length === 0) {
    return [text(width / 2, height / 2, 'no data', { 'text-anchor': 'middle', fill: '#8c8c8c' })];
  }
  const names = renderNames(lines, width, height - 8);
  const [left, right, top, bottom] = [52, width - 10, 28, height - 9 - names.lines * nameLinePx];
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, value]) => value)), 0);
  const scale = scaleOf(most, unit, bottom, top);
  const grid = scale.ticks.flatMap((tick) => {
    const at = scale.place(tick);
    return [
      element('line', { x1: left, x2: right, y1: at, y2: at, stroke: '#ececec' }),
      text(left - 5, at + 3, formatValue(tick, unit), { 'text-anchor': 'end', 'font-size': 9 }),
    ];
  });
  const drawn = lines.flatMap(({ points }, index) =>
    withoutGaps(points).map((piece) =>
      element('polyline', {
        points: piece
          .map(([atS, value]) => {
            const px = left + (atS / seconds) * (right - left);
            return `${px.toFixed(1)},${scale.place(value).toFixed(1)}`;
          })
          .join(' '),
        fill: 'none',
        stroke: colorOf(index),
        'stroke-width': 1.5,
      }),
    ),
  );
  return [...grid, ...drawn, ...names.parts];
}

/** The pieces of a line that has no value for some time; Grafana does not bridge it either. */
function withoutGaps(points: PanelLine['points']): readonly PanelLine['points'][] {
  const pieces: (readonly [number, number])[][] = [];
  let lastS = -Infinity;
  for (const point of points) {
    const piece = pieces.at(-1);
    if (piece === undefined || point[0] - lastS > longestGapS) pieces.push([point]);
    else piece.push(point);
    [lastS] = point;
  }
  return pieces;
}

/** With round numbers of the unit that is shown. */
function scaleOf(most: number, unit: string, bottom: number, top: number): Scale {
  const { seconds } = unit === 's' ? timeUnitOf(most) : { seconds: 1 };
  const { place, ticks } = linearScale(most / seconds, bottom, top);
  return { place: (value) => place(value / seconds), ticks: ticks.map((tick) => tick * seconds) };
}

/** On as many lines as they need, at most two, the last at `bottom`; names without room are counted. */
function renderNames(lines: readonly PanelLine[], width: number, bottom: number) {
  const placed: { readonly x: number; readonly line: number }[] = [];
  let [x, line] = [8, 0];
  for (const { name } of lines) {
    const room = 18 + textWidth(name, nameSize);
    // The last line keeps room for the count.
    const end = line === maxNameLines - 1 ? width - 32 : width - 4;
    if (x + room > end && x > 8) [x, line] = [8, line + 1];
    if (line === maxNameLines) break;
    placed.push({ x, line });
    x += room;
  }
  const used = (placed.at(-1)?.line ?? 0) + 1;
  const baseline = (of: number) => bottom - (used - 1 - of) * nameLinePx;
  const parts = placed.flatMap((at, index) => [
    element('rect', {
      ...{ x: at.x, y: baseline(at.line) - 7 },
      ...{ width: 7, height: 7, fill: colorOf(index) },
    }),
    text(at.x + 10, baseline(at.line), lines[index]?.name ?? '', { 'font-size': nameSize }),
  ]);
  const left = lines.length - placed.length;
  if (left > 0) parts.push(text(width - 28, bottom, `+${left}`, { 'font-size': nameSize }));
  return { lines: used, parts };
}

function colorOf(index: number): string {
  return palette[index % palette.length] ?? '#333';
}

/** Short, in the panel's unit. */
export function formatValue(value: number, unit: string): string {
  switch (unit) {
    case 'percentunit':
      return `${short(value * 100)}%`;
    case 's':
      return formatSeconds(value);
    case 'reqps':
      return `${short(value)}/s`;
    default:
      return short(value);
  }
}

function formatSeconds(value: number): string {
  if (value === 0) return '0s';
  const { name, seconds } = timeUnitOf(value);
  return `${short(value / seconds)}${name}`;
}

function timeUnitOf(value: number): { readonly name: string; readonly seconds: number } {
  if (value < 0.001) return { name: 'µs', seconds: 1e-6 };
  if (value < 1) return { name: 'ms', seconds: 1e-3 };
  if (value < 7_200) return { name: 's', seconds: 1 };
  return value < 172_800 ? { name: 'h', seconds: 3_600 } : { name: 'd', seconds: 86_400 };
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
