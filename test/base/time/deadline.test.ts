import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { openDeadline, pause, untilAborted } from '../../../src/base/time/deadline.ts';
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
