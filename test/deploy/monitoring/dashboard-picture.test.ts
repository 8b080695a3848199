import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { formatValue, renderDashboard } from './dashboard-picture.ts';
import { unreadableTexts } from '../../support/unreadable-texts.ts';
import { readDashboard } from './queries.ts';

const gridPos = { x: 0, y: 0, w: 12, h: 8 };

describe('the picture of the dashboard', () => {
  it('has each panel with its lines and its unit, and marks panels without data', () => {
    const points = [
      [0, 1],
      [1, 3],
    ] as const;
    const svg = renderDashboard(
      'x',
      [
        {
          title: 'A & B',
          type: 'timeseries',
          unit: 'reqps',
          gridPos,
          lines: [{ name: 'ok', points }],
        },
        {
          title: 'Empty',
          type: 'timeseries',
          unit: 's',
          gridPos: { ...gridPos, x: 12 },
          lines: [],
        },
        {
          title: 'Row',
          type: 'row',
          unit: '',
          gridPos: { x: 0, y: 16, w: 24, h: 1 },
          lines: [],
        },
        {
          title: 'One',
          type: 'stat',
          unit: 'short',
          gridPos: { ...gridPos, y: 8 },
          lines: [{ name: '', points }],
        },
      ],
      1,
    );
    for (const part of ['A &amp; B', '>▾ Row<', '>ok<', '<polyline', '3/s', '>no data<', '>3<']) {
      assert.ok(svg.includes(part), part);
    }
    assert.match(svg, /^<svg [^>]*width="1014" height="414"/);
  });

  it('has names on two lines that do not overlap, and counts those that do not fit', () => {
    const lines = Array.from({ length: 40 }, (_, index) => ({
      name: `upstream_down-${index}`,
      points: [],
    }));
    const svg = renderDashboard(
      'x',
      [{ title: 't', type: 'timeseries', unit: 's', gridPos, lines }],
      1,
    );
    assert.match(svg, />\+\d\d</);
    assert.ok(svg.includes('>upstream_down-7<') && !svg.includes('upstream_down-39'));
    assert.deepEqual(unreadableTexts(svg), []);
  });

  it('does not bridge the time in which a line has no value', () => {
    const line = { name: 'a', points: [[0, 1], [1, 1], [8, 1], [9, 1]] } as const; // prettier-ignore
    const panel = { title: 't', type: 'timeseries', unit: 's', gridPos, lines: [line] };
    assert.equal(renderDashboard('x', [panel], 10).match(/<polyline /g)?.length, 2);
  });

  it('has round numbers of the unit that it shows', () => {
    const line = { name: 'a', points: [[0, 86_000]] } as const;
    const panel = { title: 't', type: 'timeseries', unit: 's', gridPos, lines: [line] };
    const ticks = renderDashboard('x', [panel], 1).match(/(?<=>)[\d.]+h(?=<)/g);
    assert.deepEqual(ticks, ['10h', '20h', '30h']);
  });

  it('has numbers in the unit of their panel', () => {
    const shown = [
      formatValue(0.0514, 'percentunit'),
      formatValue(0.000_12, 's'),
      formatValue(0.25, 's'),
      formatValue(90, 's'),
      formatValue(86_400, 's'),
      formatValue(1_209_600, 's'),
      formatValue(0, 's'),
      formatValue(12.345, 'short'),
    ];
    assert.deepEqual(shown, ['5.14%', '120µs', '250ms', '90s', '24h', '14d', '0s', '12.3']);
  });

  it('in the docs shows all rows and panels of the current dashboard, with data, to be read', () => {
    const svg = readFileSync(join(import.meta.dirname, '../../../docs/dashboard.svg'), 'utf8');
    for (const { type, title } of readDashboard().panels) {
      assert.ok(svg.includes(type === 'row' ? `>▾ ${title}<` : `>${title}<`), title);
    }
    assert.ok(!svg.includes('no data') && !svg.includes('0.0.0-source'));
    assert.deepEqual(unreadableTexts(svg), []);
  });
});
