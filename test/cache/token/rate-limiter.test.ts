import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ConcurrencyGate, type Entrant } from '../../../src/cache/token/rate-limiter.ts';
import { HandClock } from '../../support/hand-clock.ts';

function open(limits = { maxConcurrent: 2, maxPerSec: 100, maxQueued: 3 }) {
  const clock = new HandClock();
  const gate = new ConcurrencyGate({ clock, ...limits });
  const started: string[] = [];
  const entrant = (name: string): Entrant => ({ start: () => started.push(name) });
  return { clock, gate, started, entrant };
}

describe('the gate', () => {
  it('starts at once while there is room, then in the order of arrival', () => {
    const { gate, started, entrant } = open();
    const [a, b, c, d] = [entrant('a'), entrant('b'), entrant('c'), entrant('d')];
    for (const each of [a, b, c, d]) assert.ok(gate.enter(each, 'caller'));
    assert.deepEqual(started, ['a', 'b']);
    gate.leave(b);
    assert.deepEqual(started, ['a', 'b', 'c']);
    gate.leave(b);
    assert.deepEqual(started, ['a', 'b', 'c'], 'a slot is given back once');
    gate.leave(a);
    assert.deepEqual(started, ['a', 'b', 'c', 'd']);
    assert.equal(gate.running, 2);
  });

  it('lets callers go before background work, and background work become a caller’s', () => {
    const { gate, started, entrant } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 3 });
    const running = entrant('running');
    gate.enter(running, 'background');
    const [back1, back2] = [entrant('back 1'), entrant('back 2')];
    gate.enter(back1, 'background');
    gate.enter(back2, 'background');
    const caller = entrant('caller');
    gate.enter(caller, 'caller');
    gate.hurry(back2);
    for (const each of [running, caller, back2]) gate.leave(each);
    assert.deepEqual(started, ['running', 'caller', 'back 2', 'back 1']);
  });

  it('refuses beyond its queue, each rank for itself', () => {
    const { gate, started, entrant } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 1 });
    assert.ok(gate.enter(entrant('running'), 'caller'));
    assert.ok(gate.enter(entrant('back'), 'background'));
    assert.ok(!gate.enter(entrant('back 2'), 'background'));
    const waiting = entrant('waiting');
    assert.ok(gate.enter(waiting, 'caller'));
    assert.ok(!gate.enter(entrant('too many'), 'caller'));
    gate.leave(waiting);
    assert.ok(gate.enter(entrant('another'), 'caller'), 'who leaves makes room');
    assert.deepEqual(started, ['running']);
    assert.equal(gate.queued, 2);
  });

  it('never starts more than its rate in any second, and as many as it may', () => {
    const anyArrival = fc.record({
      afterMs: fc.nat(400),
      lastsMs: fc.integer({ min: 1, max: 300 }),
    });
    fc.assert(
      fc.property(fc.array(anyArrival, { maxLength: 60 }), (arrivals) => {
        const clock = new HandClock();
        const gate = new ConcurrencyGate({ clock, maxConcurrent: 3, maxPerSec: 5, maxQueued: 60 });
        const startsAtMs: number[] = [];
        let [running, most] = [0, 0];
        let atMs = 0;
        for (const { afterMs, lastsMs } of arrivals) {
          atMs += afterMs;
          const entrant: Entrant = {
            start: () => {
              startsAtMs.push(clock.monotonicMs());
              most = Math.max(most, ++running);
              clock.schedule(lastsMs, () => {
                running--;
                gate.leave(entrant);
              });
            },
          };
          clock.schedule(atMs, () => gate.enter(entrant, 'caller'));
        }
        clock.advance(atMs + 60 * 1_000);
        assert.equal(startsAtMs.length, arrivals.length);
        assert.ok(most <= 3);
        for (const [index, startMs] of startsAtMs.entries()) {
          const later = startsAtMs[index + 5];
          assert.ok(later === undefined || later - startMs >= 1_000);
        }
        assert.deepEqual(clock.armed, []);
        assert.deepEqual([gate.running, gate.queued], [0, 0]);
      }),
    );
  });

  it('waits on one timer for its rate, and on none when nobody waits', () => {
    const { clock, gate, started, entrant } = open({
      maxConcurrent: 9,
      maxPerSec: 2,
      maxQueued: 9,
    });
    const waiting = ['a', 'b', 'c', 'd'].map(entrant);
    for (const each of waiting) gate.enter(each, 'caller');
    assert.deepEqual(clock.armed, [1_000]);
    clock.advance(999);
    assert.deepEqual(started, ['a', 'b']);
    for (const each of waiting.slice(2)) gate.leave(each);
    assert.deepEqual(clock.armed, []);
  });

  it('starts nothing once it is disposed', () => {
    const { clock, gate, started, entrant } = open({
      maxConcurrent: 1,
      maxPerSec: 1,
      maxQueued: 9,
    });
    const running = entrant('running');
    gate.enter(running, 'caller');
    gate.leave(running);
    gate.enter(entrant('waiting'), 'caller');
    assert.equal(clock.armed.length, 1);
    gate[Symbol.dispose]();
    assert.ok(!gate.enter(entrant('late'), 'caller'));
    assert.deepEqual(clock.armed, []);
    clock.advance(10_000);
    assert.deepEqual(started, ['running']);
  });
});
