/** A Grafana dashboard as one picture, with the panels at their Grafana positions. Pure. */
import { linearScale } from '../../bench/report/scale.ts';
import { element, picture, text } from '../../bench/report/svg.ts';

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
const maxNames = 8;
const palette = ['#0b6bcb', '#3a9d5d', '#d98324', '#c23b4b', '#8a4fbf', '#1f9aa0', '#8c8c8c'];

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
  const [width, height] = [w * columnPx - gapPx, h * rowPx - gapPx];
  const frame = { width, height, rx: 3, fill: '#fff', stroke: '#d4d4d4' };
  const body =
    panel.type === 'stat'
      ? renderStat(panel, width, height)
      : renderLines(panel, width, height, seconds);
  return element(
    'g',
    { transform: `translate(${x * columnPx + gapPx} ${y * rowPx + gapPx})` },
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
  const [left, right, top, bottom] = [52, width - 10, 28, height - 22];
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, value]) => value)), 0);
  const scale = linearScale(most, bottom, top);
  const grid = scale.ticks.flatMap((tick) => {
    const at = scale.place(tick);
    return [
      element('line', { x1: left, x2: right, y1: at, y2: at, stroke: '#ececec' }),
      text(left - 5, at + 3, formatValue(tick, unit), { 'text-anchor': 'end', 'font-size': 9 }),
    ];
  });
  const drawn = lines.map(({ points }, index) =>
    element('polyline', {
      points: points
        .map(([atS, value]) => {
          const px = left + (atS / seconds) * (right - left);
          return `${px.toFixed(1)},${scale.place(value).toFixed(1)}`;
        })
        .join(' '),
      fill: 'none',
      stroke: colourOf(index),
      'stroke-width': 1.5,
    }),
  );
  return [...grid, ...drawn, ...renderNames(lines, right - 8, height - 8)];
}

/** On one line; names that do not fit are counted. */
function renderNames(lines: readonly PanelLine[], width: number, y: number): readonly string[] {
  const parts: string[] = [];
  let x = 8;
  for (const [index, { name }] of lines.entries()) {
    const room = 14 + name.length * 5;
    if (index >= maxNames || x + room > width - 40) {
      parts.push(text(x, y, `+${lines.length - index}`, { 'font-size': 9 }));
      break;
    }
    parts.push(
      element('rect', { x, y: y - 7, width: 7, height: 7, fill: colourOf(index) }),
      text(x + 10, y, name, { 'font-size': 9 }),
    );
    x += room;
  }
  return parts;
}

function colourOf(index: number): string {
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
  if (value < 0.001) return `${short(value * 1e6)}µs`;
  if (value < 1) return `${short(value * 1e3)}ms`;
  if (value < 7_200) return `${short(value)}s`;
  return value < 172_800 ? `${short(value / 3_600)}h` : `${short(value / 86_400)}d`;
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
