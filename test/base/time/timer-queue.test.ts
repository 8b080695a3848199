import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import { TimerQueue, type QueuedTimer } from '../../../src/base/time/timer-queue.ts';
import { HandClock } from '../../support/hand-clock.ts';

function createAlarm(fire: () => void): QueuedTimer {
  return { dueAtMs: 0, disarm: undefined, fire };
}

describe('alarms', () => {
  it('fire in order of time', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const rung: string[] = [];
    for (const [name, delayMs] of [
      ['late', 500],
      ['soon', 10],
      ['middle', 100],
    ] as const) {
      const timer = createAlarm(() => rung.push(`${name} ${clock.monotonicMs()}`));
      alarms.set(timer, delayMs);
    }
    clock.advance(1_000);
    assert.deepEqual(rung, ['soon 10', 'middle 100', 'late 500']);
    assert.deepEqual(clock.armed, []);
  });

  it('can be moved and cleared, and leave no timer after the last one', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const rung: number[] = [];
    const timer = createAlarm(() => rung.push(clock.monotonicMs()));
    alarms.set(timer, 100);
    alarms.set(timer, 300);
    clock.advance(200);
    assert.deepEqual(rung, []);
    alarms.set(timer, 50);
    clock.advance(50);
    assert.deepEqual(rung, [250]);
    alarms.set(timer, 50);
    alarms.clear(timer);
    alarms.clear(timer);
    assert.deepEqual(clock.armed, []);
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

  it('do not fire from the timer of one that was cleared', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const cleared = createAlarm(() => assert.fail('it was cleared'));
    const rung: number[] = [];
    alarms.set(cleared, 10);
    alarms.set(
      createAlarm(() => rung.push(clock.monotonicMs())),
      90,
    );
    alarms.clear(cleared);
    clock.advance(100);
    assert.deepEqual(rung, [90]);
  });

  it('have left the queue when they fire', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const isArmed: boolean[] = [];
    const timer = createAlarm(() => isArmed.push(timer.disarm !== undefined));
    alarms.set(timer, 10);
    clock.advance(10);
    assert.deepEqual(isArmed, [false]);
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

  it('arm nothing once they are disposed', () => {
    const clock = new HandClock();
    const alarms = new TimerQueue(clock);
    const timer = createAlarm(() => assert.fail('they are disposed'));
    alarms.set(timer, 10);
    alarms[Symbol.dispose]();
    alarms.set(timer, 10);
    assert.deepEqual(clock.armed, []);
    clock.advance(100);
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
