import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { formatValue, renderDashboard } from '../../scripts/dashboard/picture.ts';
import { readDashboard } from '../deploy/monitoring/queries.ts';

const gridPos = { x: 0, y: 0, w: 12, h: 8 };

describe('the picture of the dashboard', () => {
  it('has each panel with its lines and its unit, and marks panels without data', () => {
    const points = [
      [0, 1],
      [10, 3],
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
          title: 'One',
          type: 'stat',
          unit: 'short',
          gridPos: { ...gridPos, y: 8 },
          lines: [{ name: '', points }],
        },
      ],
      10,
    );
    for (const part of ['A &amp; B', '>ok<', '<polyline', '3/s', '>no data<', '>3<']) {
      assert.ok(svg.includes(part), part);
    }
    assert.match(svg, /^<svg [^>]*width="1014" height="390"/);
  });

  it('counts the names that do not fit', () => {
    const lines = Array.from({ length: 40 }, (_, index) => ({
      name: `series-${index}`,
      points: [],
    }));
    const svg = renderDashboard(
      'x',
      [{ title: 't', type: 'timeseries', unit: 's', gridPos, lines }],
      1,
    );
    assert.match(svg, />\+\d\d</);
    assert.ok(!svg.includes('series-39'));
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

  it('in the docs shows all panels of the current dashboard', () => {
    const svg = readFileSync(join(import.meta.dirname, '../../docs/dashboard.svg'), 'utf8');
    for (const { title } of readDashboard().panels) assert.ok(svg.includes(`>${title}<`), title);
  });
});
