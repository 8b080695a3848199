import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { giveBackSpareMemory } from '../../src/base/spare-memory.ts';
import { HandClock } from '../support/hand-clock.ts';

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

function createTestBed(giveBack: () => void = () => undefined) {
  const clock = new HandClock();
  const synced = Promise.withResolvers<void>();
  let times = 0;
  const giving = giveBackSpareMemory({
    clock,
    log,
    whenSynced: () => synced.promise,
    giveBack: () => {
      times += 1;
      giveBack();
    },
  });
  return {
    clock,
    giving,
    synced,
    times: () => times,
  };
}

describe('spare memory', () => {
  it('is released when the start is over, and once a minute from then on', async () => {
    const { clock, synced, times } = createTestBed();
    clock.advance(600_000);
    assert.equal(times(), 0);
    synced.resolve();
    await nextTurn();
    clock.advance(0);
    assert.equal(times(), 1);
    clock.advance(180_000);
    assert.equal(times(), 4);
  });

  it('is kept from then on when it cannot be released', async () => {
    const { clock, synced, times } = createTestBed(() => {
      throw new Error('no addon');
    });
    synced.resolve();
    await nextTurn();
    clock.advance(600_000);
    assert.equal(times(), 1);
    assert.deepEqual(clock.armed, []);
  });

  it('is not released after disposal, nor when the start never ends', async () => {
    const testBed = createTestBed();
    testBed.synced.resolve();
    await nextTurn();
    testBed.clock.advance(0);
    testBed.giving[Symbol.dispose]();
    testBed.clock.advance(600_000);
    assert.equal(testBed.times(), 1);

    const early = createTestBed();
    early.giving[Symbol.dispose]();
    early.synced.resolve();
    await nextTurn();
    assert.equal(early.times(), 0);

    const never = createTestBed();
    never.synced.reject(new Error('stopped'));
    await nextTurn();
    assert.equal(never.times(), 0);
    assert.deepEqual(never.clock.armed, []);
  });
});
