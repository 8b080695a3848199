import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { debounce } from '../../../src/base/time/debounce.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('debounced work', () => {
  it('runs once for a burst, the delay after its first event', () => {
    const clock = new HandClock();
    const runs: number[] = [];
    const work = debounce(clock, 100, () => runs.push(clock.monotonicMs()));
    const startMs = clock.monotonicMs();
    work.trigger();
    clock.advance(60);
    work.trigger();
    clock.advance(60);
    assert.deepEqual(runs, [startMs + 100]);
    clock.advance(1_000);
    assert.equal(runs.length, 1);
  });

  it('runs again for events during the run', () => {
    const clock = new HandClock();
    let runs = 0;
    const work = debounce(clock, 10, () => {
      if (++runs === 1) work.trigger();
    });
    work.trigger();
    clock.advance(10);
    assert.equal(runs, 1);
    clock.advance(10);
    assert.equal(runs, 2);
  });

  it('never runs after it is disposed', () => {
    const clock = new HandClock();
    let runs = 0;
    const work = debounce(clock, 10, () => runs++);
    work.trigger();
    work[Symbol.dispose]();
    clock.advance(1_000);
    assert.equal(runs, 0);
    assert.deepEqual(clock.armed, []);
  });
});
