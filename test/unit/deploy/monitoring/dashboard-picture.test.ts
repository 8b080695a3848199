import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { unreadableTexts } from '../../../support/unreadable-texts.ts';
import { formatValue, renderDashboard, type DrawnPanel } from './dashboard-picture.ts';
import { readDashboard } from './queries.ts';

const gridPos = { x: 0, y: 0, w: 12, h: 8 };
const graph: DrawnPanel = { title: 't', type: 'timeseries', unit: 's', gridPos, lines: [] };
const line = (name: string, ...points: readonly (readonly [number, number])[]) => ({
  name,
  points,
});

describe('the picture of the dashboard', () => {
  it('has each panel with its lines and its unit, and marks panels without data', () => {
    const lines = [line('ok', [0, 1], [1, 3])];
    const panels = [
      { ...graph, title: 'A & B', unit: 'reqps', lines },
      { ...graph, gridPos: { ...gridPos, x: 12 } },
      { ...graph, title: 'Row', type: 'row', gridPos: { x: 0, y: 16, w: 24, h: 1 } },
      { ...graph, type: 'stat', unit: 'short', gridPos: { ...gridPos, y: 8 }, lines },
    ];
    const svg = renderDashboard('x', panels, 1);
    for (const part of ['A &amp; B', '>▾ Row<', '>ok<', '<polyline', '3/s', '>no data<', '>3<']) {
      assert.ok(svg.includes(part), part);
    }
    assert.match(svg, /^<svg [^>]*width="1014" height="414"/);
  });

  it('has names on two lines that do not overlap, and counts those that do not fit', () => {
    const lines = Array.from({ length: 40 }, (_, index) => line(`upstream_down-${index}`));
    const svg = renderDashboard('x', [{ ...graph, lines }], 1);
    assert.match(svg, />\+\d\d</);
    assert.ok(svg.includes('>upstream_down-7<') && !svg.includes('upstream_down-39'));
    assert.deepEqual(unreadableTexts(svg), []);
  });

  it('has round numbers of the unit that it shows, and bridges no time without a value', () => {
    const hours = renderDashboard('x', [{ ...graph, lines: [line('a', [0, 86_000])] }], 1);
    assert.deepEqual(hours.match(/(?<=>)[\d.]+h(?=<)/g), ['10h', '20h', '30h']);
    const gap = [line('a', [0, 1], [1, 1], [8, 1], [9, 1])];
    const svg = renderDashboard('x', [{ ...graph, lines: gap }], 10);
    assert.equal(svg.match(/<polyline /g)?.length, 2);
    for (const [value, unit, shown] of [
      [0.0514, 'percentunit', '5.14%'],
      [0.000_12, 's', '120µs'],
      [0.25, 's', '250ms'],
      [90, 's', '90s'],
      [86_400, 's', '24h'],
      [1_209_600, 's', '14d'],
      [0, 's', '0s'],
      [12.345, 'short', '12.3'],
    ] as const) {
      assert.equal(formatValue(value, unit), shown);
    }
  });

  it('in the docs shows all rows and panels of the current dashboard, with data, to be read', () => {
    const svg = readFileSync(join(import.meta.dirname, '../../../../docs/dashboard.svg'), 'utf8');
    for (const { type, title } of readDashboard().panels) {
      assert.ok(svg.includes(type === 'row' ? `>▾ ${title}<` : `>${title}<`), title);
    }
    assert.ok(!svg.includes('no data') && !svg.includes('0.0.0-source'));
    assert.deepEqual(unreadableTexts(svg), []);
  });
});
