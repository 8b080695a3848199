import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Pod } from '../../../src/cache/index/objects.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { CallerLimits } from '../../../src/nmi/server/caller-limits.ts';
import type { Exchange } from '../../../src/nmi/server/request.ts';
import { waitForObject } from '../../../src/nmi/server/wait-for-object.ts';
import { Waiters } from '../../../src/nmi/state/waiters.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

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

function open({ maxWaiters = 10, pendingObjects = 10 } = {}) {
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
    const { waiters, objectWait } = open();
    for (const first of [{ pod: undefined }, { pod: undefined, isPending: false }]) {
      const decided = waitForObject<typeof first>(objectWait, {} as Exchange, first, () =>
        assert.fail('decided again'),
      );
      assert.equal(waiters.size, 0);
      assert.equal(await decided, first);
    }
  });

  it('is decided again at every change, until the decision is final', async () => {
    const { clock, waiters, state, begin } = open();
    const request = begin();
    waiters.wake();
    await nextTurn();
    assert.deepEqual([state.decisions, nameOf(request), waiters.size], [1, undefined, 1]);
    state.isPending = false;
    waiters.wake();
    await nextTurn();
    assert.equal(nameOf(request), 'later');
    assert.deepEqual([state.decisions, waiters.size, clock.armed.length], [2, 0, 0]);
  });

  it('gets the latest decision at its deadline, counted from its arrival', async () => {
    const { clock, begin } = open();
    clock.advance(700);
    const [early, late] = [begin(), begin(undefined, { startedAtMs: 700 })];
    clock.advance(300);
    await nextTurn();
    assert.equal(nameOf(early), 'later');
    assert.equal(nameOf(late), undefined);
    clock.advance(700);
    await nextTurn();
    assert.equal(nameOf(late), 'later');
  });

  it('does not wait when its deadline has already passed', async () => {
    const { clock, waiters, begin } = open();
    clock.advance(1_000);
    const request = begin();
    assert.equal(waiters.size, 0);
    await nextTurn();
    assert.equal(nameOf(request), 'first');
  });

  it('is released when its client has disconnected, at once or at the next change', async () => {
    const { waiters, state, begin } = open();
    const waiting = begin();
    state.isGone = true;
    const gone = begin();
    await nextTurn();
    assert.equal(nameOf(gone), 'first');
    assert.equal(waiters.size, 1);
    waiters.wake();
    await nextTurn();
    assert.equal(nameOf(waiting), 'later');
    assert.equal(waiters.size, 0);
  });

  it('is answered at once when too many requests wait, of all callers', async () => {
    const { waiters, begin } = open({ maxWaiters: 2 });
    begin();
    begin(undefined, { ip: '127.0.0.12' });
    const oneMore = begin(undefined, { ip: '127.0.0.13' });
    assert.equal(waiters.size, 2);
    await nextTurn();
    assert.equal(nameOf(oneMore), 'first');
  });

  it('is answered at once when too many of its pod wait, and those of others continue to wait', async () => {
    const { waiters, begin } = open({ pendingObjects: 1 });
    const [one, two] = [createPod({ uid: 'one' }), createPod({ uid: 'two' })];
    begin(one);
    const oneMore = begin(one, { ip: '127.0.0.12' });
    const other = begin(two);
    const nobody = begin();
    const sameAddress = begin();
    await nextTurn();
    assert.equal(nameOf(oneMore), 'first', 'of one pod, whatever the address');
    assert.equal(nameOf(sameAddress), 'first', 'of one address');
    assert.deepEqual([nameOf(other), nameOf(nobody), waiters.size], [undefined, undefined, 3]);
  });

  it('releases its place however it ends', async () => {
    const { clock, waiters, state, begin } = open({ pendingObjects: 1 });
    begin();
    clock.advance(1_000);
    await nextTurn();
    const failing = begin(undefined, { startedAtMs: 1_000 });
    assert.equal(waiters.size, 1, 'after a full wait');
    Object.defineProperty(state, 'isPending', {
      get: () => {
        throw new RangeError('decide');
      },
    });
    waiters.wake();
    await nextTurn();
    assert.match(String(failing.error), /RangeError: decide/);
    begin(undefined, { startedAtMs: 1_000 });
    assert.equal(waiters.size, 1, 'after a failure');
  });
});
