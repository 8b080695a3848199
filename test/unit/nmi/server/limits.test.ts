import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as loopTurn } from 'node:timers/promises';
import type { Party } from '../../../../src/base/fair-queue.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import { CallerLimits, CallerRates } from '../../../../src/nmi/server/caller-limits.ts';
import { FairTurns } from '../../../../src/nmi/server/fair-turns.ts';
import {
  MetadataCalls,
  NoTurnError,
  type MetadataAnswer,
} from '../../../../src/nmi/server/metadata-calls.ts';
import type { Exchange } from '../../../../src/nmi/server/request.ts';
import { waitForObject } from '../../../../src/nmi/server/wait-for-object.ts';
import { Waiters } from '../../../../src/nmi/state/waiters.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { pass } from '../../../support/token-fixture.ts';

describe('the limits of one caller', () => {
  it('count different tokens, and requests for the same one share a place', () => {
    const limits = new CallerLimits({ fetches: 2, waiting: 10, pendingObjects: 1 });
    const first = limits.beginFetch('a', 'one');
    const joined = limits.beginFetch('a', 'one');
    assert.ok(first !== undefined && joined !== undefined);
    assert.ok(limits.beginFetch('a', 'two') !== undefined);
    assert.equal(limits.beginFetch('a', 'three'), undefined);
    assert.ok(limits.beginFetch('b', 'three') !== undefined, 'of another caller');
    first();
    assert.equal(limits.beginFetch('a', 'three'), undefined, 'the other request still waits');
    joined();
    assert.ok(limits.beginFetch('a', 'three') !== undefined);
  });

  it('report which caller exceeded which limit', () => {
    const beyond: string[] = [];
    const limits = new CallerLimits(
      { fetches: 1, waiting: 2, pendingObjects: 1 },
      (limitKey, limit) => beyond.push(`${limitKey} ${limit}`),
    );
    limits.beginFetch('a', 'one');
    limits.beginFetch('a', 'two');
    limits.beginFetch('a', 'one');
    limits.beginFetch('a', 'one');
    limits.beginWait('b');
    limits.beginWait('b');
    assert.deepEqual(beyond, ['a fetches', 'a waiting', 'b pendingObjects']);
  });

  it('count the requests that wait for an object', () => {
    const limits = new CallerLimits({ fetches: 1, waiting: 1, pendingObjects: 1 });
    const end = limits.beginWait('a');
    assert.equal(limits.beginWait('a'), undefined);
    assert.ok(limits.beginWait('b') !== undefined);
    end?.();
    assert.ok(limits.beginWait('a') !== undefined);
  });
});

describe('the rate of one caller', () => {
  it('is exceeded after the burst, until time has paid for it', () => {
    let nowMs = 5_000;
    const rates = new CallerRates(100, 3, () => nowMs);
    const times = (key: string, count: number) =>
      Array.from({ length: count }, () => rates.isBeyond(key)).filter(Boolean).length;
    assert.equal(times('a', 5), 2);
    assert.equal(times('b', 3), 0, 'another caller');
    nowMs += 20;
    assert.equal(times('a', 3), 1);
    nowMs += 60_000;
    assert.equal(times('a', 5), 2, 'no more than the burst is saved up');
  });

  it('is counted for a bounded number of callers, without losing those that are fast', () => {
    let nowMs = 0;
    const rates = new CallerRates(1, 1, () => nowMs);
    for (let count = 0; count < 1_024; count++) rates.isBeyond(`pod ${count}`);
    assert.equal(rates.isBeyond('late'), false);
    assert.equal(rates.isBeyond('late'), false, 'there is no room');
    assert.equal(rates.isBeyond('pod 0'), true);
    nowMs = 1_000;
    assert.equal(rates.isBeyond('late'), false);
    assert.equal(rates.isBeyond('late'), true);
  });
});

/** Turns that the test ends; work takes the given time. */
function openTurns() {
  let nowMs = 0;
  const due: (() => void)[] = [];
  const done: string[] = [];
  const turns = new FairTurns(
    () => nowMs,
    (work) => due.push(work),
  );
  return {
    done,
    due,
    turns,
    run: (caller: string, takesMs: number) =>
      turns.run(caller, () => {
        nowMs += takesMs;
        done.push(caller);
      }),
    /** @returns the work done in the turn, in order. */
    nextTurn: () => {
      done.length = 0;
      for (const work of due.splice(0)) work();
      return done.join('');
    },
  };
}

describe('turns of the event loop', () => {
  it('serve callers with little work at once', () => {
    const { run, done, due } = openTurns();
    for (let count = 0; count < 3; count++) assert.equal(run('a', 0.001), true);
    assert.equal(done.length, 3);
    assert.equal(due.length, 0, 'no turn is scheduled');
    run('a', 0.02);
    run('b', 0.2);
    assert.equal(due.length, 1, 'one turn for all');
  });

  it('defer the excess work of one caller to the next turn, without effect on others', () => {
    const { run, nextTurn } = openTurns();
    const wasAtOnce = Array.from({ length: 8 }, () => run('a', 0.15));
    assert.deepEqual(wasAtOnce, [true, true, true, false, false, false, false, false]);
    assert.equal(run('b', 0.15), true);
    assert.equal(nextTurn(), 'aaa');
    assert.equal(run('b', 0.15), true);
    assert.equal(run('a', 0.15), false, 'behind the deferred work');
    assert.equal(nextTurn(), 'aaa');
    assert.equal(nextTurn(), '');
    assert.equal(run('a', 0.1), true);
  });

  it('serve all deferred callers, each up to its share', () => {
    const { run, nextTurn } = openTurns();
    for (const caller of ['a', 'b']) for (let count = 0; count < 5; count++) run(caller, 0.25);
    assert.equal(nextTurn(), 'aabb');
    assert.equal(nextTurn(), 'ab');
  });

  it('keep the order of one caller, including work that its work adds', () => {
    const { run, turns, done, nextTurn } = openTurns();
    for (let count = 0; count < 3; count++) run('a', 0.15);
    turns.run('a', () => {
      done.push('1');
      turns.run('a', () => done.push('3'));
    });
    turns.run('a', () => done.push('2'));
    assert.equal(nextTurn(), '123');
  });

  it('count the overhead around requests that take no time', () => {
    const { run, nextTurn } = openTurns();
    const wasAtOnce = Array.from({ length: 40 }, () => run('a', 0));
    const atOnce = wasAtOnce.filter(Boolean).length;
    assert.ok(atOnce >= 10 && atOnce <= 20, `${atOnce}`);
    assert.equal(nextTurn().length, atOnce);
  });

  it('are short while connections are accepted, until a turn accepts none', () => {
    const { turns, run, nextTurn } = openTurns();
    turns.accepted();
    for (let count = 0; count < 8; count++) run('a', 0.08);
    assert.equal(run('b', 0), true);
    turns.accepted();
    assert.equal(nextTurn(), 'a', 'one was accepted in the turn before');
    assert.equal(nextTurn(), 'aaaa', 'up to a whole share');
    assert.equal(nextTurn(), 'aa');
    assert.equal(nextTurn(), '');
  });

  it('count work that is done later', () => {
    const { turns, run, nextTurn } = openTurns();
    turns.charge('a', 0.4);
    assert.equal(run('b', 0.1), true);
    assert.equal(run('a', 0.1), false);
    assert.equal(nextTurn(), 'a');
  });

  it('forget callers, however many there are', () => {
    const { run, due, nextTurn } = openTurns();
    for (let count = 0; count < 1_024; count++) run(`${count}`, 0.001);
    assert.equal(due.length, 0);
    run('one more', 0.001);
    assert.equal(due.length, 1);
    nextTurn();
    run('another', 0.001);
    assert.equal(due.length, 0);
  });
});

interface Decision {
  readonly name: string;
  readonly pod: Pod | undefined;
  readonly isPending?: boolean;
}

interface Client {
  readonly ip?: string;
  /** Arrival of the request. */
  readonly startedAtMs?: number;
}

interface Request {
  /** The result; undefined while it waits. */
  decision: Decision | undefined;
  error: unknown;
}

function nameOf({ decision }: Request): string | undefined {
  return decision?.name;
}

function openWait({ maxWaiters = 10, pendingObjects = 10 } = {}) {
  const clock = new HandClock();
  const waiters = new Waiters({ clock, maxWaiters });
  const limits = new CallerLimits({ fetches: 1, waiting: 1, pendingObjects });
  const objectWait = { clock, waiters, limits, maxWaitMs: 1_000 };
  const state = { isPending: true, isGone: false, decisions: 0 };
  /** A request that is decided by `state`. */
  function begin(pod?: Pod, { ip = '127.0.0.11', startedAtMs = 0 }: Client = {}): Request {
    const caller = new CallerConnection({ remoteIp: ip }, { kind: 'by-address' });
    const exchange = {
      caller,
      startedAtMs,
      get isGone() {
        return state.isGone;
      },
    } as unknown as Exchange;
    const decide = (): Decision => {
      state.decisions++;
      return { name: 'later', pod, isPending: state.isPending };
    };
    const first: Decision = { name: 'first', pod, isPending: true };
    const request: Request = { decision: undefined, error: undefined };
    waitForObject(objectWait, exchange, first, decide).then(
      (decision) => (request.decision = decision),
      (error: unknown) => (request.error = error),
    );
    return request;
  }
  return { clock, waiters, limits, objectWait, state, begin };
}

describe('a request that waits for an object', () => {
  it('does not wait when no event can change its decision', async () => {
    const { waiters, objectWait } = openWait();
    for (const first of [{ pod: undefined }, { pod: undefined, isPending: false }]) {
      const decided = waitForObject<typeof first>(objectWait, {} as Exchange, first, () =>
        assert.fail('decided again'),
      );
      assert.equal(waiters.size, 0);
      assert.equal(await decided, first);
    }
  });

  it('is decided again at every change, until the decision is final', async () => {
    const { clock, waiters, state, begin } = openWait();
    const request = begin();
    waiters.wake();
    await loopTurn();
    assert.deepEqual([state.decisions, nameOf(request), waiters.size], [1, undefined, 1]);
    state.isPending = false;
    waiters.wake();
    await loopTurn();
    assert.equal(nameOf(request), 'later');
    assert.deepEqual([state.decisions, waiters.size, clock.armed.length], [2, 0, 0]);
  });

  it('gets the latest decision at its deadline, counted from its arrival', async () => {
    const { clock, begin } = openWait();
    clock.advance(700);
    const [early, late] = [begin(), begin(undefined, { startedAtMs: 700 })];
    clock.advance(300);
    await loopTurn();
    assert.equal(nameOf(early), 'later');
    assert.equal(nameOf(late), undefined);
    clock.advance(700);
    await loopTurn();
    assert.equal(nameOf(late), 'later');
  });

  it('is released when its client has disconnected, at once or at the next change', async () => {
    const { waiters, state, begin } = openWait();
    const waiting = begin();
    state.isGone = true;
    const gone = begin();
    await loopTurn();
    assert.equal(nameOf(gone), 'first');
    assert.equal(waiters.size, 1);
    waiters.wake();
    await loopTurn();
    assert.equal(nameOf(waiting), 'later');
    assert.equal(waiters.size, 0);
  });

  it('is answered at once when too many requests wait, of all callers', async () => {
    const { waiters, begin } = openWait({ maxWaiters: 2 });
    begin();
    begin(undefined, { ip: '127.0.0.12' });
    const oneMore = begin(undefined, { ip: '127.0.0.13' });
    assert.equal(waiters.size, 2);
    await loopTurn();
    assert.equal(nameOf(oneMore), 'first');
  });

  it('is answered at once when too many of its pod wait, and those of others continue to wait', async () => {
    const { waiters, begin } = openWait({ pendingObjects: 1 });
    const [one, two] = [createPod({ uid: 'one' }), createPod({ uid: 'two' })];
    begin(one);
    const oneMore = begin(one, { ip: '127.0.0.12' });
    const other = begin(two);
    const nobody = begin();
    const sameAddress = begin();
    await loopTurn();
    assert.equal(nameOf(oneMore), 'first', 'of one pod, whatever the address');
    assert.equal(nameOf(sameAddress), 'first', 'of one address');
    assert.deepEqual([nameOf(other), nameOf(nobody), waiters.size], [undefined, undefined, 3]);
  });

  it('releases its place however it ends', async () => {
    const { clock, waiters, state, begin } = openWait({ pendingObjects: 1 });
    begin();
    clock.advance(1_000);
    await loopTurn();
    const failing = begin(undefined, { startedAtMs: 1_000 });
    assert.equal(waiters.size, 1, 'after a full wait');
    Object.defineProperty(state, 'isPending', {
      get: () => {
        throw new RangeError('decide');
      },
    });
    waiters.wake();
    await loopTurn();
    assert.match(String(failing.error), /RangeError: decide/);
    begin(undefined, { startedAtMs: 1_000 });
    assert.equal(waiters.size, 1, 'after a failure');
  });
});

const pod: Party = { namespace: 'default', pod: 'a' };
const other: Party = { namespace: 'default', pod: 'b' };

function openCalls() {
  const clock = new HandClock();
  const calls = new MetadataCalls(clock, 10_000);
  const sent: { readonly what: string; readonly atMs: number }[] = [];
  const service = { latencyMs: 50, status: 200, bytes: 10 };
  const ask = (
    what: string,
    { party = pod, isKept = true, isShared = true } = {},
  ): Promise<MetadataAnswer> =>
    calls.make({
      sharedKey: isShared ? what : undefined,
      isKept,
      party,
      send: async (signal) => {
        sent.push({ what, atMs: clock.monotonicMs() });
        const { promise, resolve, reject } = Promise.withResolvers<undefined>();
        clock.schedule(service.latencyMs, () => resolve(undefined));
        signal.addEventListener('abort', () => reject(signal.reason));
        await promise;
        return { status: service.status, headers: [], body: Buffer.alloc(service.bytes) };
      },
    });
  return { clock, calls, sent, service, ask };
}

type Fixture = ReturnType<typeof openCalls>;
type Service = Fixture['service'];

describe('calls of the metadata service', () => {
  it('are limited to five a second for the node, and pods take turns', async () => {
    const { clock, sent, ask } = openCalls();
    const flood = Array.from({ length: 40 }, (_, index) => ask(`noise ${index}`));
    await pass(clock, 500);
    const quiet = ask('quiet', { party: other });
    await pass(clock, 600);
    await quiet;
    const place = sent.findIndex(({ what }) => what === 'quiet');
    assert.equal(place, 4, 'others have left it a part of the second');
    await pass(clock, 10_000);
    await Promise.all(flood);
    for (const { atMs } of sent) {
      const within = sent.filter((each) => each.atMs >= atMs && each.atMs < atMs + 1_000).length;
      assert.ok(within <= 5, `${within} within a second`);
    }
  });

  it('are shared by equal requests, and their answers are kept for three seconds', async () => {
    const { clock, sent, ask } = openCalls();
    const all = Array.from({ length: 200 }, (_, index) =>
      ask('compute', { party: { namespace: 'default', pod: `${index}` } }),
    );
    await pass(clock, 50);
    await Promise.all(all);
    await pass(clock, 2_999);
    await ask('compute');
    assert.equal(sent.length, 1);
    await pass(clock, 1);
    const later = ask('compute');
    await pass(clock, 50);
    await later;
    assert.equal(sent.length, 2);
  });

  it('get the turn of each pod that waits for them, whoever began them', async () => {
    const { clock, sent, ask } = openCalls();
    const flood = [
      ...Array.from({ length: 15 }, (_, index) => ask(`noise ${index}`)),
      ask('popular'),
    ];
    await pass(clock, 500);
    const joined = ask('popular', { party: other });
    await pass(clock, 0);
    assert.deepEqual(sent.at(-1), { what: 'popular', atMs: 500 });
    await pass(clock, 50);
    assert.equal((await joined).status, 200);
    await pass(clock, 10_000);
    await Promise.all(flood);
    assert.equal(sent.length, 16);
  });

  const unkept: readonly (readonly [string, Partial<Service>, Parameters<Fixture['ask']>[1]])[] = [
    ['that failed', { status: 404 }, {}],
    ['whose answer is large', { bytes: 64 * 1024 + 1 }, {}],
    ['that are not to be kept', {}, { isKept: false }],
    ['that are nobody else’s', {}, { isShared: false }],
  ];
  for (const [what, change, call] of unkept) {
    it(`${what} are repeated`, async () => {
      const { clock, sent, service, ask } = openCalls();
      Object.assign(service, change);
      for (let turn = 1; turn <= 2; turn++) {
        const asked = ask('x', call);
        await pass(clock, 50);
        await asked;
        assert.equal(sent.length, turn);
      }
    });
  }

  it('that hang end in time, release their slot, and report whether they had one', async () => {
    const { clock, sent, service, ask } = openCalls();
    service.latencyMs = 60_000;
    const hung = [pod, pod, pod, other, pod, pod].map((party, index) =>
      ask(`hung ${index}`, { party }),
    );
    const outcomes = Promise.allSettled(hung);
    await pass(clock, 10_000);
    const reasons = (await outcomes).map((each) =>
      each.status === 'rejected' && each.reason instanceof Error ? each.reason.name : 'none',
    );
    assert.deepEqual(reasons.slice(0, 4), Array(4).fill('TimeoutError'));
    assert.ok((await Promise.allSettled(hung)).slice(4).every(isNoTurn));
    assert.equal(sent.length, 4);
    service.latencyMs = 0;
    const next = ask('next');
    await pass(clock, 0);
    assert.equal((await next).status, 200);
  });
});

function isNoTurn(outcome: PromiseSettledResult<unknown>): boolean {
  return outcome.status === 'rejected' && outcome.reason instanceof NoTurnError;
}
