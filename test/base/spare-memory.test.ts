import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { giveBackSpareMemory } from '../../src/base/spare-memory.ts';
import { HandClock } from '../support/hand-clock.ts';

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

describe('spare memory', () => {
  it('is released once a minute, until the disposal', () => {
    const clock = new HandClock();
    let times = 0;
    const giving = giveBackSpareMemory(clock, log, () => void (times += 1));
    clock.advance(180_000);
    assert.equal(times, 3);
    giving[Symbol.dispose]();
    clock.advance(600_000);
    assert.deepEqual([times, clock.armed], [3, []]);
  });

  it('is kept from then on when it cannot be released', () => {
    const clock = new HandClock();
    let times = 0;
    giveBackSpareMemory(clock, log, () => {
      times += 1;
      throw new Error('no addon');
    });
    clock.advance(600_000);
    assert.deepEqual([times, clock.armed], [1, []]);
  });
});
