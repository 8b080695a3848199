import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { queryObjects } from 'node:v8';
import fc from 'fast-check';
import { Counts } from '../../../src/base/counts.ts';
import { dropOldest } from '../../../src/base/drop-oldest.ts';
import { ExpiringMap } from '../../../src/base/expiring-map.ts';
import { FairQueue, type Party } from '../../../src/base/fair-queue.ts';
import { type Linked, LinkedList } from '../../../src/base/linked-list.ts';
import { RateLimiter, type RateLimiterOptions, type Task } from '../../../src/base/rate-limiter.ts';
import { SingleFlight } from '../../../src/base/single-flight.ts';
import { giveBackSpareMemory } from '../../../src/base/spare-memory.ts';
import { HandClock } from '../../support/hand-clock.ts';

const podA = { namespace: 'n', pod: 'a' };
const podB = { namespace: 'n', pod: 'b' };

function open(limits: Partial<RateLimiterOptions> = {}) {
  const clock = new HandClock();
  const usual = { maxConcurrent: 2, maxPerSec: 100, maxQueued: 9 };
  const limiter = new RateLimiter({ clock, ...usual, ...limits });
  const started: string[] = [];
  const task = (name: string): Task => ({ start: () => started.push(name) });
  return { clock, limiter, started, task };
}

describe('the limiter', () => {
  it('starts at once while there is room, then in the order of arrival', () => {
    const { limiter, started, task } = open();
    const [a, b, c, d] = [task('a'), task('b'), task('c'), task('d')];
    for (const each of [a, b, c, d]) assert.ok(limiter.enter(each, podA));
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
    const { limiter, started, task } = open({ maxConcurrent: 1, maxQueued: 3 });
    const running = task('running');
    limiter.enter(running, undefined);
    const [back1, back2] = [task('back 1'), task('back 2')];
    limiter.enter(back1, undefined);
    limiter.enter(back2, undefined);
    const caller = task('caller');
    limiter.enter(caller, podA);
    for (const each of [running, task('unknown'), back2]) limiter.hurry(each, podA);
    assert.equal(limiter.queued, 3, 'what runs or is unknown stays so');
    for (const each of [running, caller, back2]) limiter.leave(each);
    assert.deepEqual(started, ['running', 'caller', 'back 2', 'back 1']);
  });

  it('of one pod are at most ten while half of the queue is full', () => {
    const { limiter, task, started } = open({ maxConcurrent: 1, maxQueued: 40 });
    const running = task('running');
    limiter.enter(running, podA);
    const queued = (party: Party) =>
      Array.from({ length: 50 }, () => limiter.enter(task(party.pod), party)).filter(Boolean)
        .length;
    assert.deepEqual([queued(podA), queued(podB)], [20, 10]);
    assert.equal(limiter.enter(task('refresh'), undefined), true);
    limiter.leave(running);
    assert.deepEqual(started, ['running', 'a']);
    assert.equal(queued(podA), 0);
    assert.equal(queued({ namespace: 'm', pod: 'c' }), 10);
  });

  it('start at once when a pod that has not had its share waits for them too', () => {
    const { limiter, task, started } = open({ maxConcurrent: 5, maxPerSec: 5, maxQueued: 3 });
    for (let index = 0; index < 4; index++) limiter.enter(task(`a${index}`), podA);
    const last = task('last');
    limiter.enter(last, podA);
    assert.equal(started.length, 4);
    limiter.hurry(last, podB);
    assert.equal(started.at(-1), 'last');
  });

  it('refuses beyond its queue limit, each priority separately', () => {
    const { limiter, started, task } = open({ maxConcurrent: 1, maxQueued: 1 });
    assert.ok(limiter.enter(task('running'), podA));
    assert.ok(limiter.enter(task('back'), undefined));
    assert.ok(!limiter.enter(task('back 2'), undefined));
    const waiting = task('waiting');
    assert.ok(limiter.enter(waiting, podA));
    assert.ok(!limiter.enter(task('too many'), podA));
    limiter.leave(waiting);
    assert.ok(limiter.enter(task('another'), podA), 'a leaving task makes room');
    assert.deepEqual(started, ['running']);
    assert.equal(limiter.queued, 2);
  });

  it('never lets more than its rate arrive in any second, and as many as the rate allows', () => {
    const anyArrival = fc.record({
      afterMs: fc.nat(400),
      lastsMs: fc.integer({ min: 1, max: 300 }),
      /** When the upstream gets it, of the time that it lasts. */
      arrives: fc.double({ min: 0, max: 1, noNaN: true }),
      party: fc.constantFrom(podA, podA, podA, podB, undefined),
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
    const enter = (party: typeof podA, name: string): void => {
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
    for (let index = 0; index < 200; index += 1) enter(podA, 'hostile');
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
    const { clock, limiter, started, task } = open({ maxConcurrent: 9, maxPerSec: 2 });
    const waiting = ['a', 'b', 'c', 'd'].map(task);
    for (const each of waiting) limiter.enter(each, podA);
    assert.deepEqual(clock.armed, [], 'two run, and their second has not begun');
    for (const each of waiting.slice(0, 2)) limiter.leave(each);
    assert.deepEqual(clock.armed, [1_000]);
    clock.advance(999);
    assert.deepEqual(started, ['a', 'b']);
    for (const each of waiting.slice(2)) limiter.leave(each);
    assert.deepEqual(clock.armed, []);
  });

  it('gives a running fetch another try only when nothing waits and the second has room', () => {
    const { clock, limiter, started, task } = open({ maxConcurrent: 1, maxPerSec: 3 });
    const [running, waiting] = [task('running'), task('waiting')];
    limiter.enter(running, podA);
    assert.ok(limiter.takeTry(), 'nobody waits');
    for (const party of [podA, undefined]) {
      limiter.enter(waiting, party);
      assert.ok(!limiter.takeTry(), `${party?.pod ?? 'background work'} waits`);
      limiter.leave(waiting);
    }
    assert.ok(limiter.takeTry(), 'nothing waits any more');
    assert.ok(!limiter.takeTry(), 'three starts are the most in a second, including tries');
    limiter.leave(running);
    limiter.enter(waiting, podA);
    clock.advance(999);
    assert.deepEqual([limiter.takeTry(), started], [false, ['running']]);
    clock.advance(1);
    assert.deepEqual(started, ['running', 'waiting'], 'tries count for later tasks too');
    assert.ok(limiter.takeTry());
    limiter[Symbol.dispose]();
    clock.advance(1_000);
    assert.ok(!limiter.takeTry(), 'disposed');
  });

  it('starts nothing once it is disposed', () => {
    const { clock, limiter, started, task } = open({ maxConcurrent: 1, maxPerSec: 1 });
    const running = task('running');
    limiter.enter(running, podA);
    limiter.leave(running);
    limiter.enter(task('waiting'), podA);
    limiter.enter(task('waiting in the background'), undefined);
    assert.equal(clock.armed.length, 1);
    limiter[Symbol.dispose]();
    assert.equal(limiter.queued, 0);
    assert.ok(!limiter.enter(task('late'), podA));
    assert.deepEqual(clock.armed, []);
    clock.advance(10_000);
    assert.deepEqual(started, ['running']);
  });
});

const party = (name: string) => {
  const [namespace = '', pod = ''] = name.split('/');
  return { namespace, pod };
};

/** Entries are named after their owner: `shop/a 1`. */
function fill(...entries: string[]): FairQueue<string> {
  const queue = new FairQueue<string>();
  for (const entry of entries) queue.add(entry, party(entry.split(' ')[0] ?? ''));
  return queue;
}

function drain(queue: FairQueue<string>): string[] {
  const out: string[] = [];
  for (let entry = queue.shift(); entry !== undefined; entry = queue.shift()) out.push(entry);
  return out;
}

describe('the fair queue', () => {
  it('serves namespaces in turn, and the pods of a namespace in turn', () => {
    const queue = fill('n/a 1', 'n/a 2', 'n/a 3', 'n/b 1', 'm/c 1', 'm/c 2');
    assert.deepEqual(drain(queue), ['n/a 1', 'm/c 1', 'n/b 1', 'm/c 2', 'n/a 2', 'n/a 3']);
    assert.equal(queue.size, 0);
  });

  it('lets a pod that comes later wait for one entry of each other pod', () => {
    const queue = fill(...Array.from({ length: 100 }, (_, index) => `n/a ${index}`));
    queue.shift();
    queue.add('late', party('n/late'));
    assert.equal(queue.shift(), 'n/a 1');
    assert.equal(queue.shift(), 'late');
  });

  it('returns an entry with several waiters once, at the first of their turns', () => {
    const queue = fill('n/a 1', 'n/a 2', 'n/a 3');
    queue.add('n/a 3', party('m/b'));
    queue.add('n/a 3', party('m/b'));
    assert.equal(queue.size, 3);
    assert.deepEqual(drain(queue), ['n/a 1', 'n/a 3', 'n/a 2']);
  });

  it('passes over a party that may not be served, which keeps its turn', () => {
    const queue = fill('n/a 1', 'n/b 1', 'm/c 1');
    const notA = ({ pod }: { readonly pod: string }) => pod !== 'a';
    assert.deepEqual(queue.take(notA), { entry: 'n/b 1', party: party('n/b') });
    assert.deepEqual(queue.take(notA), { entry: 'm/c 1', party: party('m/c') });
    assert.equal(queue.take(notA), undefined);
    assert.equal(queue.shift(), 'n/a 1');
  });

  it('drops what is removed from it, wherever it was queued', () => {
    const queue = fill('n/a 1', 'n/a 2');
    queue.add('n/a 1', party('m/b'));
    assert.ok(queue.has('n/a 1'));
    assert.ok(queue.delete('n/a 1'));
    assert.ok(!queue.delete('n/a 1'));
    assert.ok(!queue.has('n/a 1'));
    assert.equal(queue.size, 1);
    assert.deepEqual(drain(queue), ['n/a 2']);
    queue.add('x', party('n/a'));
    queue.clear();
    assert.deepEqual([queue.size, queue.shift()], [0, undefined]);
  });

  it('keeps nothing for pods without entries, while others of their namespace have some', () => {
    const queue = fill('n/stays 1');
    const before = queryObjects(Set, { format: 'count' });
    for (let pod = 0; pod < 1_000; pod++) {
      queue.add(`n/${pod} 1`, party(`n/${pod}`));
      queue.delete(`n/${pod} 1`);
    }
    assert.ok(queryObjects(Set, { format: 'count' }) - before < 100);
    assert.equal(queue.size, 1);
  });
});

function openCalls() {
  const calls = new SingleFlight<string>();
  const begun: PromiseWithResolvers<string>[] = [];
  const begin = (): Promise<string> => {
    const call = Promise.withResolvers<string>();
    begun.push(call);
    return call.promise;
  };
  return { calls, begun, begin };
}

describe('shared calls', () => {
  it('run once at a time for a key, and again afterwards', async () => {
    const { calls, begun, begin } = openCalls();
    const [first, second, other] = [
      calls.share('a', begin),
      calls.share('a', begin),
      calls.share('b', begin),
    ];
    assert.equal(begun.length, 2);
    assert.ok(calls.has('a') && calls.has('b') && !calls.has('c'));
    begun[0]?.resolve('one');
    begun[1]?.resolve('other');
    assert.deepEqual(await Promise.all([first, second, other]), ['one', 'one', 'other']);
    assert.ok(!calls.has('a'));
    void calls.share('a', begin);
    assert.equal(begun.length, 3);
  });

  it('fail for all waiters, and are started again', async () => {
    const { calls, begun, begin } = openCalls();
    const both = [calls.share('a', begin), calls.share('a', begin)];
    begun[0]?.reject(new RangeError('why'));
    for (const each of both) await assert.rejects(each, /why/);
    assert.ok(!calls.has('a'));
  });

  it('continue for the others when one leaves', async () => {
    const { calls, begun, begin } = openCalls();
    const leave = new AbortController();
    const leaving = calls.share('a', begin, leave.signal);
    const staying = calls.share('a', begin);
    leave.abort(new RangeError('left'));
    await assert.rejects(leaving, /left/);
    assert.ok(calls.has('a'));
    begun[0]?.resolve('one');
    assert.equal(await staying, 'one');
  });
});

/** A reference model: a list, with the most recently used entry last. */
class Model {
  readonly #max: number;
  entries: { key: string; value: number; untilMs: number }[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  get(key: string): number | undefined {
    const entry = this.entries.find((each) => each.key === key);
    if (entry === undefined) return undefined;
    this.delete(key);
    this.entries.push(entry);
    return entry.value;
  }

  set(key: string, value: number, untilMs: number, nowMs: number): void {
    this.delete(key);
    if (untilMs > nowMs) this.entries.push({ key, value, untilMs });
    this.entries = this.entries.slice(-this.#max);
  }

  delete(key: string): boolean {
    const before = this.entries.length;
    this.entries = this.entries.filter((each) => each.key !== key);
    return this.entries.length < before;
  }
}

const anyKey = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const anyStep = fc.oneof(
  fc.record({ kind: fc.constant('get'), key: anyKey }),
  fc.record({ kind: fc.constant('delete'), key: anyKey }),
  fc.record({ kind: fc.constant('drop'), rest: fc.nat(2) }),
  fc.record({ kind: fc.constant('pass'), ms: fc.nat(8) }),
  fc.record({
    kind: fc.constant('set'),
    key: anyKey,
    lifeMs: fc.constantFrom(-1, 0, 1, 5, 10, undefined),
  }),
);

describe('an expiring map', () => {
  it('behaves like a list in order of use', () => {
    fc.assert(
      fc.property(
        fc.array(anyStep, { maxLength: 60 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, max) => {
          const clock = new HandClock();
          const model = new Model(max);
          const map = new ExpiringMap<number>(clock, max);
          for (const [value, step] of steps.entries()) {
            if ('ms' in step) {
              clock.advance(step.ms);
              model.entries = model.entries.filter(({ untilMs }) => untilMs > clock.monotonicMs());
            } else if ('lifeMs' in step) {
              const nowMs = clock.monotonicMs();
              map.set(step.key, value, step.lifeMs);
              model.set(step.key, value, nowMs + (step.lifeMs ?? Infinity), nowMs);
            } else if ('rest' in step) {
              map.deleteWhere((each) => each % 3 === step.rest);
              model.entries = model.entries.filter((each) => each.value % 3 !== step.rest);
            } else if (step.kind === 'get') {
              assert.equal(map.get(step.key), model.get(step.key));
            } else {
              assert.equal(map.delete(step.key), model.delete(step.key));
            }
            assert.equal(map.size, model.entries.length);
            const expiring = model.entries.filter(({ untilMs }) => untilMs !== Infinity);
            assert.equal(clock.armed.length, expiring.length);
          }
          map[Symbol.dispose]();
          for (const lifeMs of [5, undefined]) map.set('late', 0, lifeMs);
          assert.deepEqual([map.size, clock.armed], [0, []]);
        },
      ),
    );
  });

  it('returns nothing after its time, however late the timer is', () => {
    let nowMs = 0;
    const late = { wallMs: () => 0, monotonicMs: () => nowMs, schedule: () => () => undefined };
    const map = new ExpiringMap<string>(late, 10);
    map.set('a', 'value', 5);
    nowMs = 4.9;
    assert.equal(map.get('a'), 'value');
    nowMs = 5;
    assert.equal(map.get('a'), undefined);
    assert.equal(map.delete('a'), true, 'it is still in memory');
  });
});

class Item implements Linked<Item> {
  before: Item | undefined;
  after: Item | undefined;
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

function openList(count: number) {
  const list = new LinkedList<Item>();
  const items = Array.from({ length: count }, (_, at) => new Item(String(at)));
  for (const item of items) list.add(item);
  const names = () => Array.from(list, ({ name }) => name).join('');
  return { list, items, names };
}

describe('a linked list', () => {
  it('has its items in the order of addition, whichever is removed', () => {
    for (let gone = 0; gone < 4; gone += 1) {
      const { list, items, names } = openList(4);
      const item = items[gone];
      assert.ok(item !== undefined);
      list.remove(item);
      assert.equal(names(), '0123'.replace(item.name, ''));
      assert.equal(list.size, 3);
      assert.equal(list.first?.name, gone === 0 ? '1' : '0');
      assert.deepEqual([item.before, item.after], [undefined, undefined]);
      list.add(item);
      assert.equal(names(), '0123'.replace(item.name, '') + item.name);
      list.add(new Item('x'));
      assert.ok(names().endsWith(`${item.name}x`));
    }
  });

  it('goes on after an item that is removed during the iteration', () => {
    const { list, names } = openList(3);
    const seen: string[] = [];
    for (const item of list) {
      seen.push(item.name);
      list.remove(item);
    }
    assert.deepEqual(seen, ['0', '1', '2']);
    assert.deepEqual([list.size, list.first, names()], [0, undefined, '']);
  });
});

describe('the oldest entries', () => {
  it('are dropped until there is room, whenever they were used', () => {
    const names = new Set(['a', 'b', 'c']).add('a');
    dropOldest(names, 2);
    assert.deepEqual([...names], ['b', 'c']);
    const ids = new Map([
      [1, 'x'],
      [2, 'y'],
      [3, 'z'],
    ]).set(1, 'w');
    dropOldest(ids, 1);
    assert.deepEqual([...ids], [[3, 'z']]);
  });
});

describe('counts', () => {
  it('are separate for each key, and end at nothing', () => {
    const counts = new Counts();
    for (const key of ['a', 'a', 'b']) counts.add(key);
    assert.deepEqual([counts.get('a'), counts.get('b'), counts.get('c')], [2, 1, 0]);
    for (const key of ['a', 'b', 'b']) counts.remove(key);
    assert.deepEqual([counts.get('a'), counts.get('b')], [1, 0]);
  });
});

describe('spare memory', () => {
  const ignore = () => undefined;
  const log = { debug: ignore, info: ignore, warn: ignore, error: ignore };
  for (const [what, error, times] of [
    ['is released once a minute, until the disposal', undefined, 3],
    ['is kept from then on when it cannot be released', new Error('no addon'), 1],
  ] as const) {
    it(what, () => {
      const clock = new HandClock();
      let released = 0;
      const giving = giveBackSpareMemory(clock, log, () => {
        released += 1;
        if (error !== undefined) throw error;
      });
      clock.advance(180_000);
      assert.equal(released, times);
      if (error === undefined) giving[Symbol.dispose]();
      clock.advance(600_000);
      assert.deepEqual([released, clock.armed], [times, []]);
    });
  }
});
