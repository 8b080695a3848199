import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LogBudget, type ReportOmitted } from '../../../src/base/lines/log-budget.ts';
import { HandClock } from '../../support/hand-clock.ts';

function openBudget(maxKinds = 10) {
  const clock = new HandClock();
  const lines: string[] = [];
  const budget = new LogBudget({
    clock,
    maxKinds,
    onOthers: (count, details) => lines.push([`${count} of others`, ...details].join(' ')),
  });
  return {
    clock,
    lines,
    log: (kind: string, most = 1, detail?: string) => {
      const report: ReportOmitted = (count, details) =>
        lines.push([`${count} more ${kind}`, ...details].join(' '));
      if (budget.allows(kind, most, report, detail)) lines.push(kind);
    },
  };
}

describe('lines with a number that others control', () => {
  it('are written at first, and counted once a minute while they continue', () => {
    const { clock, lines, log } = openBudget();
    for (let count = 0; count < 5_000; count++) log('a', 2);
    log('b');
    assert.deepEqual(lines.splice(0), ['a', 'a', 'b']);
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['4998 more a']);
    for (let count = 0; count < 7; count++) log('a', 2);
    assert.deepEqual(lines.splice(0), []);
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['7 more a']);
  });

  it('are written again after a quiet minute, and no timer is left by then', () => {
    const { clock, lines, log } = openBudget();
    log('a');
    log('a');
    clock.advance(60_000);
    clock.advance(60_000);
    assert.deepEqual(clock.armed, []);
    lines.length = 0;
    log('a');
    log('a');
    clock.advance(60_000);
    assert.deepEqual(lines, ['a', '1 more a']);
  });

  it('are reported with 16 different details at most', () => {
    const { clock, lines, log } = openBudget(1);
    for (const detail of ['written', 'x', 'x', 'y']) log('a', 1, detail);
    log('b', 1, 'z');
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['a', '3 more a x y', '1 of others z']);
    for (let count = 0; count < 18; count++) log('a', 1, `d${count}`);
    clock.advance(60_000);
    const shown = Array.from({ length: 16 }, (_, index) => `d${index}`);
    assert.deepEqual(lines, [`18 more a ${shown.join(' ')} others`]);
  });

  it('are distinguished up to a limit', () => {
    const { clock, lines, log } = openBudget(2);
    for (const kind of ['a', 'b', 'c', 'd', 'a']) log(kind);
    assert.deepEqual(lines.splice(0), ['a', 'b']);
    clock.advance(60_000);
    assert.deepEqual(lines, ['1 more a', '2 of others']);
  });
});
