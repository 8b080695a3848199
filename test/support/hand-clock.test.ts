import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandClock } from './hand-clock.ts';

describe('the hand-driven clock', () => {
  it('runs due work in order of time, each piece at its due time, also what is armed meanwhile', () => {
    const clock = new HandClock(1000);
    const seen: string[] = [];
    const note = (name: string) => () => {
      seen.push(`${name} ${clock.monotonicMs()} ${clock.wallMs()}`);
    };
    clock.schedule(20, note('late'));
    clock.schedule(10, note('first'));
    clock.schedule(10, () => clock.schedule(5, note('armed meanwhile')));
    clock.schedule(31, note('never'));
    clock.schedule(6, () => assert.fail('disarmed work ran'))();
    clock.advance(30);
    assert.deepEqual(seen, ['first 10 1010', 'armed meanwhile 15 1015', 'late 20 1020']);
    assert.deepEqual([clock.monotonicMs(), clock.armed], [30, [1]]);
    clock.jumpWall(-300);
    assert.deepEqual([clock.monotonicMs(), clock.wallMs()], [30, 730]);
  });

  it('reports work that rearms itself endlessly', () => {
    const clock = new HandClock();
    const again = (): void => void clock.schedule(0, again);
    clock.schedule(0, again);
    assert.throws(() => clock.advance(1), /without end/);
  });
});
