import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { startPeriodicJob } from '../../../src/base/time/periodic-job.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('a periodic job', () => {
  it('runs first after its own delay, then after the delay that each run returns', () => {
    const clock = new HandClock();
    const startMs = clock.monotonicMs();
    const runs: number[] = [];
    using _job = startPeriodicJob(clock, 5, () => {
      runs.push(clock.monotonicMs() - startMs);
      return runs.length * 10;
    });
    clock.advance(40);
    assert.deepEqual(runs, [5, 15, 35]);
  });

  it('counts the pause from the end of a run', async () => {
    const clock = new HandClock();
    let runs = 0;
    const running = Promise.withResolvers<number>();
    using _job = startPeriodicJob(clock, 0, () => {
      runs++;
      return running.promise;
    });
    clock.advance(1_000);
    assert.equal(runs, 1);
    running.resolve(10);
    await nextTurn();
    clock.advance(10);
    assert.equal(runs, 2);
  });

  it('ends when a run returns that', () => {
    const clock = new HandClock();
    let runs = 0;
    using _job = startPeriodicJob(clock, 0, () => (++runs === 2 ? undefined : 10));
    clock.advance(1_000);
    assert.equal(runs, 2);
    assert.deepEqual(clock.armed, []);
  });

  it('ends with its disposal, also during a run', async () => {
    const clock = new HandClock();
    const running = Promise.withResolvers<number>();
    const job = startPeriodicJob(clock, 0, () => running.promise);
    clock.advance(0);
    job[Symbol.dispose]();
    running.resolve(10);
    await nextTurn();
    assert.deepEqual(clock.armed, []);
  });
});
