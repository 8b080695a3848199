import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Party } from '../../src/base/fair-queue.ts';
import { RateLimiter, type Task } from '../../src/base/rate-limiter.ts';
import { HandClock } from '../support/hand-clock.ts';

const pod = { namespace: 'n', pod: 'a' };
const other = { namespace: 'n', pod: 'b' };

function open(limits = { maxConcurrent: 2, maxPerSec: 100, maxQueued: 3 }) {
  const clock = new HandClock();
  const limiter = new RateLimiter({ clock, ...limits });
  const started: string[] = [];
  const task = (name: string): Task => ({ start: () => started.push(name) });
  return { clock, limiter, started, task };
}

describe('the limiter', () => {
  it('starts at once while there is room, then in the order of arrival', () => {
    const { limiter, started, task } = open();
    const [a, b, c, d] = [task('a'), task('b'), task('c'), task('d')];
    for (const each of [a, b, c, d]) assert.ok(limiter.enter(each, pod));
    assert.deepEqual(started, ['a', 'b']);
    limiter.leave(b);
    assert.deepEqual(started, ['a', 'b', 'c']);
    limiter.leave(b);
    assert.deepEqual(started, ['a', 'b', 'c'], 'a slot is released once');
    limiter.leave(a);
    assert.deepEqual(started, ['a', 'b', 'c', 'd']);
    assert.equal(limiter.running, 2);
  });

  it('starts callers before background work, and lets a caller raise the priority of that', () => {
    const { limiter, started, task } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 3 });
    const running = task('running');
    limiter.enter(running, undefined);
    const [back1, back2] = [task('back 1'), task('back 2')];
    limiter.enter(back1, undefined);
    limiter.enter(back2, undefined);
    const caller = task('caller');
    limiter.enter(caller, pod);
    limiter.hurry(back2, pod);
    for (const each of [running, caller, back2]) limiter.leave(each);
    assert.deepEqual(started, ['running', 'caller', 'back 2', 'back 1']);
  });

  it('serves pods in turn, and starts work with two waiters at the first of their turns', () => {
    const { limiter, started, task } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 10 });
    const tasks = ['running', 'a1', 'a2', 'a3'].map(task);
    for (const each of tasks) limiter.enter(each, pod);
    const [running, a1, a2, a3] = tasks;
    const b1 = task('b1');
    limiter.enter(b1, other);
    if (a3 !== undefined) limiter.hurry(a3, other);
    for (const each of [running, a1, b1, a2]) if (each !== undefined) limiter.leave(each);
    assert.deepEqual(started, ['running', 'a1', 'b1', 'a2', 'a3']);
  });

  it('of one pod are at most ten while half of the queue is full', () => {
    const { limiter, task, started } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 40 });
    const running = task('running');
    limiter.enter(running, pod);
    const queued = (party: Party) =>
      Array.from({ length: 50 }, () => limiter.enter(task(party.pod), party)).filter(Boolean)
        .length;
    assert.deepEqual([queued(pod), queued(other)], [20, 10]);
    assert.equal(limiter.enter(task('refresh'), undefined), true);
    limiter.leave(running);
    assert.deepEqual(started, ['running', 'a']);
    assert.equal(queued(pod), 0);
    assert.equal(queued({ namespace: 'm', pod: 'c' }), 10);
  });

  it('start at once when a pod that has not had its share waits for them too', () => {
    const { limiter, task, started } = open({ maxConcurrent: 5, maxPerSec: 5, maxQueued: 3 });
    for (let index = 0; index < 4; index++) limiter.enter(task(`a${index}`), pod);
    const last = task('last');
    limiter.enter(last, pod);
    assert.equal(started.length, 4);
    limiter.hurry(last, other);
    assert.equal(started.at(-1), 'last');
  });

  it('refuses beyond its queue limit, each priority separately', () => {
    const { limiter, started, task } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 1 });
    assert.ok(limiter.enter(task('running'), pod));
    assert.ok(limiter.enter(task('back'), undefined));
    assert.ok(!limiter.enter(task('back 2'), undefined));
    const waiting = task('waiting');
    assert.ok(limiter.enter(waiting, pod));
    assert.ok(!limiter.enter(task('too many'), pod));
    limiter.leave(waiting);
    assert.ok(limiter.enter(task('another'), pod), 'a leaving task makes room');
    assert.deepEqual(started, ['running']);
    assert.equal(limiter.queued, 2);
  });

  it('never lets more than its rate arrive in any second, and as many as the rate allows', () => {
    const anyArrival = fc.record({
      afterMs: fc.nat(400),
      lastsMs: fc.integer({ min: 1, max: 300 }),
      /** When the upstream gets it, of the time that it lasts. */
      arrives: fc.double({ min: 0, max: 1, noNaN: true }),
      party: fc.constantFrom(pod, pod, pod, other, undefined),
    });
    fc.assert(
      fc.property(fc.array(anyArrival, { maxLength: 60 }), (arrivals) => {
        const clock = new HandClock();
        const limiter = new RateLimiter({ clock, maxConcurrent: 3, maxPerSec: 5, maxQueued: 60 });
        const arriveAtMs: number[] = [];
        let [running, most] = [0, 0];
        let atMs = 0;
        for (const { afterMs, lastsMs, arrives, party } of arrivals) {
          atMs += afterMs;
          const task: Task = {
            start: () => {
              arriveAtMs.push(clock.monotonicMs() + arrives * lastsMs);
              most = Math.max(most, ++running);
              clock.schedule(lastsMs, () => {
                running--;
                limiter.leave(task);
              });
            },
          };
          clock.schedule(atMs, () => limiter.enter(task, party));
        }
        clock.advance(atMs + 60 * 1_000);
        assert.equal(arriveAtMs.length, arrivals.length);
        assert.ok(most <= 3);
        const inOrder = arriveAtMs.toSorted((one, two) => one - two);
        for (const [index, arriveMs] of inOrder.entries()) {
          const later = inOrder[index + 5];
          assert.ok(later === undefined || later - arriveMs >= 1_000);
        }
        assert.deepEqual(clock.armed, []);
        assert.deepEqual([limiter.running, limiter.queued], [0, 0]);
      }),
    );
  });

  it('leaves a part of both limits to others, whatever a pod queues', () => {
    const { clock, limiter, started, task } = open({
      maxConcurrent: 4,
      maxPerSec: 20,
      maxQueued: 500,
    });
    const near = { namespace: 'n', pod: 'near' };
    const far = { namespace: 'm', pod: 'far' };
    const waits: Record<string, number> = { near: 0, far: 0 };
    let starts = 0;
    const enter = (party: typeof pod, name: string): void => {
      const enteredAtMs = clock.monotonicMs();
      const one: Task = {
        start: () => {
          starts += 1;
          if (name in waits) {
            waits[name] = Math.max(waits[name] ?? 0, clock.monotonicMs() - enteredAtMs);
          }
          clock.schedule(10, () => limiter.leave(one));
        },
      };
      assert.ok(limiter.enter(one, party));
    };
    for (let index = 0; index < 200; index += 1) enter(pod, 'hostile');
    clock.advance(1_000);
    assert.equal(starts, 17, 'seventeen of twenty');
    for (let index = 0; index < 5; index += 1) {
      clock.advance(1_010);
      enter(near, 'near');
      enter(far, 'far');
    }
    clock.advance(100);
    for (const waitMs of Object.values(waits)) assert.ok(waitMs <= 10, 'the end of a running one');
    limiter.enter(task('background'), undefined);
    clock.advance(10);
    assert.deepEqual(started, ['background'], 'what a pod may not have is for background work too');
  });

  it('uses one timer for its rate, and none when nothing waits', () => {
    const { clock, limiter, started, task } = open({
      maxConcurrent: 9,
      maxPerSec: 2,
      maxQueued: 9,
    });
    const waiting = ['a', 'b', 'c', 'd'].map(task);
    for (const each of waiting) limiter.enter(each, pod);
    assert.deepEqual(clock.armed, [], 'two run, and their second has not begun');
    for (const each of waiting.slice(0, 2)) limiter.leave(each);
    assert.deepEqual(clock.armed, [1_000]);
    clock.advance(999);
    assert.deepEqual(started, ['a', 'b']);
    for (const each of waiting.slice(2)) limiter.leave(each);
    assert.deepEqual(clock.armed, []);
  });

  it('gives a running fetch another try only when nothing waits and the second has room', () => {
    const { clock, limiter, started, task } = open({
      maxConcurrent: 1,
      maxPerSec: 3,
      maxQueued: 9,
    });
    const [running, waiting] = [task('running'), task('waiting')];
    limiter.enter(running, pod);
    assert.ok(limiter.takeTry(), 'nobody waits');
    for (const party of [pod, undefined]) {
      limiter.enter(waiting, party);
      assert.ok(!limiter.takeTry(), `${party?.pod ?? 'background work'} waits`);
      limiter.leave(waiting);
    }
    assert.ok(limiter.takeTry(), 'nothing waits any more');
    assert.ok(!limiter.takeTry(), 'three starts are the most in a second, including tries');
    clock.advance(999);
    assert.ok(!limiter.takeTry());
    clock.advance(1);
    assert.ok(limiter.takeTry());
    limiter[Symbol.dispose]();
    clock.advance(1_000);
    assert.ok(!limiter.takeTry(), 'disposed');
    assert.deepEqual(started, ['running']);
  });

  it('counts tries as starts for later tasks', () => {
    const { clock, limiter, started, task } = open({
      maxConcurrent: 9,
      maxPerSec: 2,
      maxQueued: 9,
    });
    limiter.enter(task('first'), pod);
    assert.ok(limiter.takeTry());
    limiter.enter(task('second'), pod);
    assert.deepEqual(started, ['first']);
    clock.advance(1_000);
    assert.deepEqual(started, ['first', 'second']);
  });

  it('does not raise the priority of running or unknown work', () => {
    const { limiter, task } = open({ maxConcurrent: 1, maxPerSec: 100, maxQueued: 3 });
    const running = task('running');
    limiter.enter(running, undefined);
    limiter.hurry(running, pod);
    limiter.hurry(task('unknown'), pod);
    assert.equal(limiter.queued, 0);
  });

  it('starts nothing once it is disposed', () => {
    const { clock, limiter, started, task } = open({
      maxConcurrent: 1,
      maxPerSec: 1,
      maxQueued: 9,
    });
    const running = task('running');
    limiter.enter(running, pod);
    limiter.leave(running);
    limiter.enter(task('waiting'), pod);
    limiter.enter(task('waiting in the background'), undefined);
    assert.equal(clock.armed.length, 1);
    limiter[Symbol.dispose]();
    assert.equal(limiter.queued, 0);
    assert.ok(!limiter.enter(task('late'), pod));
    assert.deepEqual(clock.armed, []);
    clock.advance(10_000);
    assert.deepEqual(started, ['running']);
  });
});
