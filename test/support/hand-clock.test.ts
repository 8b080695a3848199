import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandClock } from './hand-clock.ts';

describe('the hand-driven clock', () => {
  it('runs due work in order of time, each piece at its due time', () => {
    const clock = new HandClock(1000);
    const seen: [string, number, number][] = [];
    const note = (name: string) => () => {
      seen.push([name, clock.monotonicMs(), clock.wallMs()]);
    };
    clock.schedule(20, note('late'));
    clock.schedule(10, note('first'));
    clock.schedule(10, note('second'));
    clock.schedule(31, note('never'));
    clock.advance(30);
    assert.deepEqual(seen, [
      ['first', 10, 1010],
      ['second', 10, 1010],
      ['late', 20, 1020],
    ]);
    assert.equal(clock.monotonicMs(), 30);
    assert.deepEqual(clock.armed, [1]);
  });

  it('runs work that is armed while it advances, and not work that was disarmed', () => {
    const clock = new HandClock();
    const seen: number[] = [];
    const again = (): void => {
      seen.push(clock.monotonicMs());
      if (seen.length < 3) clock.schedule(5, again);
    };
    clock.schedule(5, again);
    clock.schedule(6, () => assert.fail('disarmed work ran'))();
    clock.advance(100);
    assert.deepEqual(seen, [5, 10, 15]);
    assert.deepEqual(clock.armed, []);
  });

  it('moves only the wall clock on request', () => {
    const clock = new HandClock(1000);
    clock.jumpWall(-300);
    assert.equal(clock.wallMs(), 700);
    assert.equal(clock.monotonicMs(), 0);
  });

  it('reports work that rearms itself endlessly', () => {
    const clock = new HandClock();
    const again = (): void => {
      clock.schedule(0, again);
    };
    clock.schedule(0, again);
    assert.throws(() => {
      clock.advance(1);
    }, /without end/);
  });
});
