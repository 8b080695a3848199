/** The table of goals, and what a control decides of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Figure, Results } from '../../bench/core/results.ts';
import { renderGoals } from '../../bench/report/goals.ts';

function measured(...figures: readonly Figure[]): Results {
  const machine = { cpu: '', cores: 2, memoryMb: 1, kernel: '', arch: '', node: '' };
  const nothing = { title: '', startedAt: '', commit: '', loadBefore: 0, seconds: 0 };
  return {
    machine: { ...machine, hasAffinity: true },
    scenarios: [{ name: 'miss', ...nothing, figures, series: [], curves: [], notes: [] }],
  };
}

const ms = (name: string, ...values: readonly number[]): Figure => ({ name, unit: 'ms', values });

describe('the goals of a miss', () => {
  const agent = [ms('IMDS: added at p50', 0.6, 0.7, 0.9), ms('Entra ID: added at p50', 9.4)];
  const proxy = [
    ms('IMDS: added by a bare proxy at p50', 0.3, 0.4, 0.5),
    ms('Entra ID: added by a bare proxy at p50', 9),
  ];

  it('are what the agent adds beyond the bare proxy, round by round', () => {
    const table = renderGoals(measured(...agent, ...proxy), 'measured');
    assert.match(
      table,
      /\| 0\.3 \(0\.3–0\.4\) \/ 0\.4; the bare proxy .*: 0\.4 \(0\.3–0\.5\) \/ 9 +\|/,
    );
    assert.match(table, /\| no +\| \[0\.1 ms\]\(PROFILE\.md#a-miss\)/);
    const fast = [ms('IMDS: added at p50', 0.5), ms('Entra ID: added at p50', 9.2)];
    assert.match(renderGoals(measured(...fast, ...proxy), 'measured'), /^1 of 1 goals/);
  });

  it('are not measured without a bare proxy', () => {
    assert.equal(renderGoals(measured(...agent), 'measured'), '');
  });
});
