import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import fc from 'fast-check';
import { openDeadline, pause, untilAborted } from '../../../src/base/time/deadline.ts';
import { debounce } from '../../../src/base/time/debounce.ts';
import { durationText, parseDuration, timeText } from '../../../src/base/time/duration.ts';
import { GrowingPause } from '../../../src/base/time/growing-pause.ts';
import { startPeriodicJob } from '../../../src/base/time/periodic-job.ts';
import { type QueuedTimer, TimerQueue } from '../../../src/base/time/timer-queue.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('a deadline', () => {
  it('passes at its time and can be moved before that', () => {
    const clock = new HandClock();
    using deadline = openDeadline(clock, 100);
    clock.advance(99);
    deadline.restart(50);
    clock.advance(49);
    assert.equal(deadline.signal.aborted, false);
    clock.advance(1);
    assert.equal(deadline.signal.aborted, true);
    assert.equal(deadline.passed, true);
  });

  it('ends with the caller’s signal without having passed', () => {
    const caller = new AbortController();
    using deadline = openDeadline(new HandClock(), 100, caller.signal);
    caller.abort(new Error('enough'));
    assert.equal(deadline.passed, false);
    assert.match(String(deadline.signal.reason), /enough/);
    using late = openDeadline(new HandClock(), 100, caller.signal);
    assert.equal(late.signal.aborted, true);
  });

  it('leaves no timer and no listener', () => {
    const clock = new HandClock();
    const caller = new AbortController();
    const deadline = openDeadline(clock, 100, caller.signal);
    assert.equal(getEventListeners(caller.signal, 'abort').length, 1);
    deadline[Symbol.dispose]();
    assert.equal(getEventListeners(caller.signal, 'abort').length, 0);
    assert.deepEqual(clock.armed, []);
  });
});

describe('a pause', () => {
  it('ends at its time or at the signal, and leaves nothing behind', async () => {
    const clock = new HandClock();
    const stop = new AbortController();
    const first = pause(clock, 100, stop.signal);
    clock.advance(100);
    await first;
    const second = pause(clock, 100, stop.signal);
    stop.abort();
    await second;
    await pause(clock, 100, stop.signal);
    assert.deepEqual(clock.armed, []);
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0);
  });
});

describe('work until a signal', () => {
  it('returns the work, its failure, or the reason of the signal', async () => {
    const stop = new AbortController();
    assert.equal(await untilAborted(stop.signal, Promise.resolve(7)), 7);
    await assert.rejects(untilAborted(stop.signal, Promise.reject(new Error('broken'))), /broken/);
    const waiting = untilAborted(stop.signal, new Promise(() => undefined));
    stop.abort(new Error('enough'));
    await assert.rejects(waiting, /enough/);
    await assert.rejects(untilAborted(stop.signal, Promise.resolve(7)), /enough/);
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0);
  });
});

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
    let again = 0;
    const endless = debounce(clock, 10, () => {
      if (++again === 1) endless.trigger();
    });
    endless.trigger();
    clock.advance(10);
    assert.equal(again, 1);
    clock.advance(10);
    assert.equal(again, 2, 'an event during the run causes another');
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

it('reads durations as Go writes them', () => {
  for (const [text, ms] of [
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['250ms', 250],
    ['1.25s', 1_250],
    // The longest that a timer can take.
    ['2147483647ms', 2_147_483_647],
  ] as const) {
    assert.equal(parseDuration(text), ms);
  }
  for (const bad of ['', '5', 's', '1d', '-1s', '1s x', '1000h', '2147483648ms', '.5s', '1.s']) {
    assert.equal(parseDuration(bad), undefined);
  }
});

it('writes durations in two units at most', () => {
  const texts: readonly (readonly [number, string])[] = [
    [999, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min 0 s'],
    [3_599_000, '59 min 59 s'],
    [3_600_000, '1 h 0 min'],
    [86_399_000, '23 h 59 min'],
    [86_400_000, '1 d 0 h'],
    [180_000_000, '2 d 2 h'],
  ];
  for (const [ms, text] of texts) assert.equal(durationText(ms), text);
});

it('renders a time in UTC and whole seconds', () => {
  assert.equal(timeText(Date.UTC(2026, 11, 2, 9) + 999), '2026-12-02T09:00:00Z');
});

describe('a growing pause', () => {
  it('doubles while requests continue, and is short again after a break', () => {
    const clock = new HandClock();
    const growing = new GrowingPause(clock, 5_000, 60_000);
    const takenAtMs: number[] = [];
    const startedAtMs = clock.monotonicMs();
    for (let step = 0; step < 4_000; step++) {
      if (growing.take()) takenAtMs.push(clock.monotonicMs() - startedAtMs);
      clock.advance(100);
    }
    assert.deepEqual(takenAtMs.slice(0, 7), [0, 5_000, 15_000, 35_000, 75_000, 135_000, 195_000]);
    clock.advance(120_000);
    assert.equal(growing.take(), true);
    clock.advance(4_999);
    assert.equal(growing.take(), false);
    clock.advance(1);
    assert.equal(growing.take(), true);
  });
});

describe('a periodic job', () => {
  it('runs first after its own delay, then after the delay that each run returns', () => {
    const clock = new HandClock();
    const startMs = clock.monotonicMs();
    const runs: number[] = [];
    using _job = startPeriodicJob(clock, 5, () => {
      runs.push(clock.monotonicMs() - startMs);
      return runs.length === 3 ? undefined : runs.length * 10;
    });
    clock.advance(1_000);
    assert.deepEqual(runs, [5, 15, 35]);
    assert.deepEqual(clock.armed, [], 'it ends when a run returns no delay');
  });

  it('counts the pause from the end of a run, and ends with its disposal, also during one', async () => {
    const clock = new HandClock();
    let runs = 0;
    const running = Promise.withResolvers<number>();
    const job = startPeriodicJob(clock, 0, () => {
      runs++;
      return running.promise;
    });
    clock.advance(1_000);
    assert.equal(runs, 1);
    running.resolve(10);
    await nextTurn();
    clock.advance(10);
    assert.equal(runs, 2);
    job[Symbol.dispose]();
    await nextTurn();
    assert.deepEqual(clock.armed, []);
  });
});

function createAlarm(fire: () => void): QueuedTimer {
  return { dueAtMs: 0, disarm: undefined, fire };
}

describe('alarms', () => {
  it('fire once at their last time, in order, unless they are cleared, in any order of events', () => {
    const at = fc.nat(3);
    const anyStep = fc.oneof(
      fc.record({ at, delayMs: fc.integer({ min: -1, max: 50 }) }),
      fc.record({ at }),
      fc.record({ passMs: fc.nat(40) }),
    );
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 30 }), (steps) => {
        const clock = new HandClock();
        const alarms = new TimerQueue(clock);
        const due = new Map<QueuedTimer, number>();
        const all = Array.from({ length: 4 }, () => {
          const timer = createAlarm(() => {
            assert.deepEqual([timer.disarm, due.get(timer)], [undefined, clock.monotonicMs()]);
            due.delete(timer);
          });
          return timer;
        });
        for (const step of steps) {
          const timer = 'at' in step ? all[step.at]! : undefined;
          if (timer === undefined) clock.advance('passMs' in step ? step.passMs : 0);
          else if ('delayMs' in step) {
            alarms.set(timer, step.delayMs);
            due.set(timer, clock.monotonicMs() + Math.max(0, step.delayMs));
          } else {
            alarms.clear(timer);
            due.delete(timer);
          }
          const lefts = [...due.values()].map((dueMs) => dueMs - clock.monotonicMs());
          assert.deepEqual(
            clock.armed,
            lefts.toSorted((a, b) => a - b),
          );
        }
        alarms[Symbol.dispose]();
        alarms.set(all[0]!, 10);
        assert.deepEqual(clock.armed, []);
      }),
    );
  });

  it('never ask for a negative delay, though time passes between two looks at the clock', () => {
    const delays: number[] = [];
    let nowMs = 0;
    using alarms = new TimerQueue({
      wallMs: () => 0,
      monotonicMs: () => (nowMs += 0.001),
      schedule: (delayMs) => {
        delays.push(delayMs);
        return () => undefined;
      },
    });
    alarms.set(
      createAlarm(() => undefined),
      0,
    );
    assert.deepEqual(delays, [0]);
  });

  it('are kept no longer than until they fire or are cleared', () => {
    class Alarm implements QueuedTimer {
      dueAtMs = 0;
      disarm: QueuedTimer['disarm'] = undefined;
      fire(): void {
        fired++;
      }
    }
    let fired = 0;
    const clock = new HandClock();
    using alarms = new TimerQueue(clock);
    for (let count = 0; count < 1_000; count++) {
      alarms.set(new Alarm(), 10);
      const cleared = new Alarm();
      alarms.set(cleared, 20);
      alarms.clear(cleared);
    }
    clock.advance(10);
    assert.equal(fired, 1_000);
    assert.ok(queryObjects(Alarm, { format: 'count' }) < 100);
  });

  it('keep firing after one that throws', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const rung: string[] = [];
    alarms.set(
      createAlarm(() => {
        throw new Error('bug');
      }),
      10,
    );
    alarms.set(
      createAlarm(() => rung.push('other')),
      10,
    );
    assert.throws(() => {
      clock.advance(10);
    }, /bug/);
    clock.advance(0);
    assert.deepEqual(rung, ['other']);
  });

  it('of years are checked once a day, because a platform timer is limited', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    let rung = 0;
    const dayMs = 24 * 3_600_000;
    alarms.set(
      createAlarm(() => rung++),
      3.5 * dayMs,
    );
    assert.deepEqual(clock.armed, [dayMs]);
    clock.advance(3 * dayMs);
    assert.deepEqual([clock.armed, rung], [[dayMs / 2], 0]);
    clock.advance(dayMs);
    assert.deepEqual([clock.armed, rung], [[], 1]);
  });
});
