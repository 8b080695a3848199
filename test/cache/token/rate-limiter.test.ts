import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ConcurrencyGate, type Entrant } from '../../../src/cache/token/rate-limiter.ts';
import { HandClock } from '../../support/hand-clock.ts';

const pod = { namespace: 'n', pod: 'a' };
const other = { namespace: 'n', pod: 'b' };

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
    for (const each of [a, b, c, d]) assert.ok(gate.enter(each, pod));
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
    gate.enter(running, undefined);
    const [back1, back2] = [entrant('back 1'), entrant('back 2')];
    gate.enter(back1, undefined);
    gate.enter(back2, undefined);
    const caller = entrant('caller');
    gate.enter(caller, pod);
    gate.hurry(back2, pod);
    for (const each of [running, caller, back2]) gate.leave(each);
    assert.deepEqual(started, ['running', 'caller', 'back 2', 'back 1']);
  });

  it('lets pods go in turn, and a start that two wait for at the first of their turns', () => {
    const { gate, started, entrant } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 10 });
    const entrants = ['running', 'a1', 'a2', 'a3'].map(entrant);
    for (const each of entrants) gate.enter(each, pod);
    const [running, a1, a2, a3] = entrants;
    const b1 = entrant('b1');
    gate.enter(b1, other);
    if (a3 !== undefined) gate.hurry(a3, other);
    for (const each of [running, a1, b1, a2]) if (each !== undefined) gate.leave(each);
    assert.deepEqual(started, ['running', 'a1', 'b1', 'a2', 'a3']);
  });

  it('refuses beyond its queue, each rank for itself', () => {
    const { gate, started, entrant } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 1 });
    assert.ok(gate.enter(entrant('running'), pod));
    assert.ok(gate.enter(entrant('back'), undefined));
    assert.ok(!gate.enter(entrant('back 2'), undefined));
    const waiting = entrant('waiting');
    assert.ok(gate.enter(waiting, pod));
    assert.ok(!gate.enter(entrant('too many'), pod));
    gate.leave(waiting);
    assert.ok(gate.enter(entrant('another'), pod), 'who leaves makes room');
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
          clock.schedule(atMs, () => gate.enter(entrant, pod));
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
    for (const each of waiting) gate.enter(each, pod);
    assert.deepEqual(clock.armed, [1_000]);
    clock.advance(999);
    assert.deepEqual(started, ['a', 'b']);
    for (const each of waiting.slice(2)) gate.leave(each);
    assert.deepEqual(clock.armed, []);
  });

  it('gives a running fetch another try only when nobody waits and the second has room', () => {
    const { clock, gate, started, entrant } = open({
      maxConcurrent: 1,
      maxPerSec: 3,
      maxQueued: 9,
    });
    const [running, waiting] = [entrant('running'), entrant('waiting')];
    gate.enter(running, pod);
    assert.ok(gate.takeTry(), 'nobody waits');
    for (const party of [pod, undefined]) {
      gate.enter(waiting, party);
      assert.ok(!gate.takeTry(), `${party?.pod ?? 'background work'} waits`);
      gate.leave(waiting);
    }
    assert.ok(gate.takeTry(), 'nobody waits any more');
    assert.ok(!gate.takeTry(), 'three starts are the most in a second, tries among them');
    clock.advance(999);
    assert.ok(!gate.takeTry());
    clock.advance(1);
    assert.ok(gate.takeTry());
    gate[Symbol.dispose]();
    clock.advance(1_000);
    assert.ok(!gate.takeTry(), 'disposed');
    assert.deepEqual(started, ['running']);
  });

  it('counts tries as starts for those that come after', () => {
    const { clock, gate, started, entrant } = open({
      maxConcurrent: 9,
      maxPerSec: 2,
      maxQueued: 9,
    });
    gate.enter(entrant('first'), pod);
    assert.ok(gate.takeTry());
    gate.enter(entrant('second'), pod);
    assert.deepEqual(started, ['first']);
    clock.advance(1_000);
    assert.deepEqual(started, ['first', 'second']);
  });

  it('makes no caller of what runs already or does not wait', () => {
    const { gate, entrant } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 3 });
    const running = entrant('running');
    gate.enter(running, undefined);
    gate.hurry(running, pod);
    gate.hurry(entrant('unknown'), pod);
    assert.equal(gate.queued, 0);
  });

  it('starts nothing once it is disposed', () => {
    const { clock, gate, started, entrant } = open({
      maxConcurrent: 1,
      maxPerSec: 1,
      maxQueued: 9,
    });
    const running = entrant('running');
    gate.enter(running, pod);
    gate.leave(running);
    gate.enter(entrant('waiting'), pod);
    gate.enter(entrant('waiting in the background'), undefined);
    assert.equal(clock.armed.length, 1);
    gate[Symbol.dispose]();
    assert.equal(gate.queued, 0);
    assert.ok(!gate.enter(entrant('late'), pod));
    assert.deepEqual(clock.armed, []);
    clock.advance(10_000);
    assert.deepEqual(started, ['running']);
  });
});
