import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OwnerBudgets } from '../../../src/base/lines/owner-budgets.ts';
import { HandClock } from '../../support/hand-clock.ts';

function open() {
  const clock = new HandClock();
  const reports: string[] = [];
  const budgets = new OwnerBudgets({
    clock,
    onOthers: (owner, count) => reports.push(`${owner} others ${count}`),
  });
  const allows = (owner: string, kind: string) =>
    budgets.of(owner).allows(kind, 1, (count) => reports.push(`${owner} ${kind} ${count}`));
  return { clock, reports, allows };
}

describe('budgets of lines by owner', () => {
  it('count each kind of each owner separately', () => {
    const { clock, reports, allows } = open();
    assert.deepEqual([allows('a', 'x'), allows('a', 'x'), allows('b', 'x')], [true, false, true]);
    clock.advance(60_000);
    assert.deepEqual(reports, ['a x 1']);
  });

  it('count further kinds of an owner together, and leave the budget of the others', () => {
    const { clock, reports, allows } = open();
    for (let kind = 0; kind < 64; kind++) assert.ok(allows('a', `kind ${kind}`));
    assert.deepEqual(
      [allows('a', 'new'), allows('a', 'newer'), allows('b', 'new')],
      [false, false, true],
    );
    clock.advance(60_000);
    assert.deepEqual(reports, ['a others 2']);
  });

  it('have a total of lines for each owner, besides the first one of each kind', () => {
    const clock = new HandClock();
    const budgets = new OwnerBudgets({ clock, maxLines: 3, onOthers: () => undefined });
    const written = (owner: string, kind: string) =>
      [1, 2, 3, 4].filter(() => budgets.of(owner).allows(kind, 3, () => undefined)).length;
    for (let minute = 0; minute < 2; minute++) {
      assert.deepEqual([written('a', `w${minute}`), written('a', `x${minute}`)], [3, 2]);
      assert.deepEqual([written('a', `y${minute}`), written('b', `w${minute}`)], [1, 3]);
      clock.advance(60_000);
    }
  });

  it('drop owners without counts, and group those beyond 512', () => {
    const { clock, allows } = open();
    for (let owner = 0; owner < 512; owner++) allows(`owner ${owner}`, 'x');
    assert.deepEqual([allows('late', 'x'), allows('later', 'x')], [true, false]);
    clock.advance(60_000);
    clock.advance(60_000);
    assert.deepEqual([allows('late', 'x'), allows('later', 'x')], [true, true]);
  });
});
