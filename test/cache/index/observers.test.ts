import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Observers } from '../../../src/cache/index/observers.ts';

describe('observers', () => {
  it('are called with each value until they unsubscribe', () => {
    const observers = new Observers<[string]>();
    const calls: string[] = [];
    const observer = (text: string): void => void calls.push(text);
    const stop = observers.add(observer);
    const stopAgain = observers.add(observer);
    observers.notify('one');
    stop();
    stop();
    observers.notify('two');
    stopAgain();
    observers.notify('three');
    assert.deepEqual(calls, ['one', 'one', 'two']);
  });

  it('that another one unsubscribes during a notification are not called, and new ones not yet', () => {
    const observers = new Observers();
    const calls: string[] = [];
    observers.add(() => {
      calls.push('first');
      stopSecond();
      observers.add(() => calls.push('new'));
    });
    const stopSecond = observers.add(() => calls.push('second'));
    observers.notify();
    assert.deepEqual(calls, ['first']);
  });

  it('do not affect each other when one throws', () => {
    const errors: unknown[] = [];
    const observers = new Observers((error) => errors.push(error));
    const calls: string[] = [];
    const failure = new RangeError('observer');
    observers.add(() => {
      throw failure;
    });
    observers.add(() => calls.push('second'));
    observers.notify();
    assert.deepEqual([errors, calls], [[failure], ['second']]);
  });
});
