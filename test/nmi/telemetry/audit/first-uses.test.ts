import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FirstUses } from '../../../../src/nmi/telemetry/audit/first-uses.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function open() {
  const clock = new HandClock();
  const uses = new FirstUses(clock);
  /** How many of these uses are first ones. */
  const count = (pod: string, from: number, to: number): number => {
    let first = 0;
    for (let use = from; use < to; use++) if (uses.take(pod, `use ${use}`)) first += 1;
    return first;
  };
  return { clock, uses, count };
}

describe('the first uses of a pod', () => {
  it('are each reported once, for each pod', () => {
    const { uses } = open();
    assert.deepEqual(
      [uses.take('a', 'x'), uses.take('a', 'x'), uses.take('a', 'y'), uses.take('b', 'x')],
      [true, false, true, true],
    );
  });

  it('are at most 600 in a minute, and a use beyond is reported in the next one', () => {
    const { clock, uses, count } = open();
    assert.equal(count('a', 0, 1_000), 600);
    assert.ok(uses.take('b', 'x'), 'another pod has a share of its own');
    clock.advance(59_999);
    assert.ok(!uses.take('a', 'use 999'));
    clock.advance(1);
    assert.ok(uses.take('a', 'use 999'));
    assert.equal(count('a', 0, 1_000), 599);
  });

  it('are remembered for 256 uses and 512 pods', () => {
    const { uses, count } = open();
    assert.equal(count('a', 0, 256), 256);
    assert.equal(count('a', 0, 256), 0);
    assert.ok(uses.take('a', 'new'));
    assert.ok(uses.take('a', 'use 0'), 'the oldest is forgotten, and recorded once more');
    assert.ok(!uses.take('a', 'use 255'));
    for (let pod = 0; pod < 511; pod++) uses.take(`pod ${pod}`, 'x');
    assert.ok(!uses.take('a', 'new'));
    uses.take('pod 511', 'x');
    assert.ok(uses.take('a', 'new'));
  });
});
