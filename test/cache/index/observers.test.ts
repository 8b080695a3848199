import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ignoreListenerError, Listeners } from '../../../src/cache/index/observers.ts';

describe('listeners', () => {
  it('are called with what there is to say, until they unsubscribe', () => {
    const listeners = new Listeners<[string]>(ignoreListenerError);
    const calls: string[] = [];
    const listener = (text: string): void => void calls.push(text);
    const stop = listeners.add(listener);
    const stopAgain = listeners.add(listener);
    listeners.notify('one');
    stop();
    stop();
    listeners.notify('two');
    stopAgain();
    listeners.notify('three');
    assert.deepEqual(calls, ['one', 'one', 'two']);
  });

  it('that another unsubscribes meanwhile are not called, and new ones not yet', () => {
    const listeners = new Listeners(ignoreListenerError);
    const calls: string[] = [];
    listeners.add(() => {
      calls.push('first');
      stopSecond();
      listeners.add(() => calls.push('new'));
    });
    const stopSecond = listeners.add(() => calls.push('second'));
    listeners.notify();
    assert.deepEqual(calls, ['first']);
  });

  it('do no harm to each other when one throws', () => {
    const errors: unknown[] = [];
    const listeners = new Listeners((error) => errors.push(error));
    const calls: string[] = [];
    const failure = new RangeError('listener');
    listeners.add(() => {
      throw failure;
    });
    listeners.add(() => calls.push('second'));
    listeners.notify();
    assert.deepEqual([errors, calls], [[failure], ['second']]);
  });
});
