import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as loopTurn } from 'node:timers/promises';
import type { Party } from '../../../../src/base/fair-queue.ts';
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

/** Requests that are first decided as `first`, and later as `state` has it. */
function openWait({ maxWaiters = 10, pendingObjects = 10 } = {}) {
  const clock = new HandClock();
  const waiters = new Waiters({ clock, maxWaiters });
  const limits = new CallerLimits({ fetches: 1, waiting: 1, pendingObjects });
  const objectWait = { clock, waiters, limits, maxWaitMs: 1_000 };
  const state = {
    isPending: true,
    isGone: false,
    decisions: 0,
    error: undefined as Error | undefined,
  };
  /** @returns what it ended with, undefined while it waits. */
  function begin(podUid = '', ip = '127.0.0.11', startedAtMs = 0) {
    const caller = new CallerConnection({ remoteIp: ip }, { kind: 'by-address' });
    const exchange = Object.defineProperty({ caller, startedAtMs }, 'isGone', {
      get: () => state.isGone,
    }) as unknown as Exchange;
    const pod = podUid === '' ? undefined : createPod({ uid: podUid });
    const decide = () => {
      state.decisions++;
      if (state.error !== undefined) throw state.error;
      return { name: 'later', pod, isPending: state.isPending };
    };
    const end = { as: undefined as string | undefined };
    const first = { name: 'first', pod, isPending: true };
    waitForObject(objectWait, exchange, first, decide).then(
      ({ name }) => (end.as = name),
      (error: unknown) => (end.as = String(error)),
    );
    return end;
  }
  const passed = async (ms: number): Promise<void> => {
    clock.advance(ms);
    await loopTurn();
  };
  const wake = async (): Promise<void> => {
    waiters.wake();
    await loopTurn();
  };
  return { clock, waiters, objectWait, state, begin, passed, wake };
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
    const { clock, waiters, state, begin, wake } = openWait();
    const request = begin();
    await wake();
    assert.deepEqual([state.decisions, request.as, waiters.size], [1, undefined, 1]);
    state.isPending = false;
    await wake();
    assert.deepEqual([state.decisions, request.as, waiters.size], [2, 'later', 0]);
    assert.deepEqual(clock.armed, []);
  });

  it('gets the latest decision at its deadline, counted from its arrival', async () => {
    const { begin, passed, waiters } = openWait();
    await passed(700);
    const [early, late] = [begin(), begin('', undefined, 700)];
    await passed(300);
    assert.deepEqual([early.as, late.as], ['later', undefined]);
    const tooLate = begin();
    assert.equal(waiters.size, 1, 'its deadline has passed');
    await passed(700);
    assert.deepEqual([late.as, tooLate.as], ['later', 'first']);
  });

  it('is released when its client has disconnected, at once or at the next change', async () => {
    const { waiters, state, begin, passed, wake } = openWait();
    const waiting = begin();
    state.isGone = true;
    const gone = begin();
    await passed(0);
    assert.deepEqual([gone.as, waiters.size], ['first', 1]);
    await wake();
    assert.deepEqual([waiting.as, waiters.size], ['later', 0]);
  });

  it('is answered at once when too many wait, of all callers or of its pod', async () => {
    const all = openWait({ maxWaiters: 2 });
    const ends = ['127.0.0.11', '127.0.0.12', '127.0.0.13'].map((ip) => all.begin('', ip));
    await all.passed(0);
    assert.deepEqual(
      ends.map((end) => end.as),
      [undefined, undefined, 'first'],
    );
    const { begin, passed } = openWait({ pendingObjects: 1 });
    const [one, sameOne, two, nobody, sameAddress] = [
      begin('one'),
      begin('one', '127.0.0.12'),
      begin('two'),
      begin(),
      begin(),
    ];
    await passed(0);
    assert.deepEqual([one.as, two.as, nobody.as], [undefined, undefined, undefined]);
    assert.deepEqual([sameOne.as, sameAddress.as], ['first', 'first']);
  });

  it('releases its place however it ends', async () => {
    const { waiters, state, begin, passed, wake } = openWait({ pendingObjects: 1 });
    begin();
    await passed(1_000);
    const failing = begin('', undefined, 1_000);
    assert.equal(waiters.size, 1, 'after a full wait');
    state.error = new RangeError('decide');
    await wake();
    assert.match(String(failing.as), /RangeError: decide/);
    begin('', undefined, 1_000);
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
