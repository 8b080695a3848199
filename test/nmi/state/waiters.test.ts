import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Waiters } from '../../../src/nmi/state/waiters.ts';
import { HandClock } from '../../support/hand-clock.ts';

function open(maxWaiters = 2) {
  const clock = new HandClock();
  let waits = 0;
  const waiters = new Waiters({ clock, maxWaiters, onWait: () => waits++ });
  const woken: string[] = [];
  const wait = (name: string, maxMs: number): void => {
    void waiters.nextChange(maxMs).then(() => woken.push(name));
  };
  return { clock, waiters, woken, wait, waits: () => waits };
}

describe('requests that wait for an object', () => {
  it('are all woken by a change, and leave no timer behind', async () => {
    const { clock, waiters, woken, wait } = open();
    wait('one', 1_000);
    wait('two', 2_000);
    assert.equal(waiters.size, 2);
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, ['one', 'two']);
    assert.equal(waiters.size, 0);
    assert.deepEqual(clock.armed, []);
  });

  it('wait no longer than their own deadline, and the others continue', async () => {
    const { clock, waiters, woken, wait } = open();
    wait('one', 1_000);
    wait('two', 2_000);
    clock.advance(999);
    await nextTurn();
    assert.deepEqual(woken, []);
    clock.advance(1);
    await nextTurn();
    assert.deepEqual(woken, ['one']);
    assert.equal(waiters.size, 1);
  });

  it('are full at their limit, and not once one has left', () => {
    const { clock, waiters, wait } = open(2);
    wait('one', 1_000);
    assert.ok(!waiters.isFull);
    wait('two', 2_000);
    assert.ok(waiters.isFull);
    clock.advance(1_000);
    assert.ok(!waiters.isFull);
  });

  it('have each watch checked once', () => {
    const { waiters, wait, waits } = open();
    wait('one', 1_000);
    wait('two', 1_000);
    waiters.wake();
    assert.equal(waits(), 2);
  });

  it('wait for the next change when they wait again during one', async () => {
    const { waiters, woken, wait } = open();
    void waiters.nextChange(1_000).then(() => wait('again', 1_000));
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, []);
    assert.equal(waiters.size, 1);
    waiters.wake();
    await nextTurn();
    assert.deepEqual(woken, ['again']);
  });
});
