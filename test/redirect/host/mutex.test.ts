import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMutex } from '../../../src/redirect/host/mutex.ts';

describe('queued operations', () => {
  it('run one after the other, also after one that failed', async () => {
    const serialize = createMutex();
    const events: string[] = [];
    const work = (name: string, error?: Error) =>
      serialize(async () => {
        events.push(`${name} begins`);
        await new Promise(setImmediate);
        events.push(`${name} ends`);
        if (error !== undefined) throw error;
        return name;
      });
    const [first, second, third] = await Promise.allSettled([
      work('first'),
      work('second', new RangeError('second')),
      work('third'),
    ]);
    assert.deepEqual(
      events,
      ['first', 'second', 'third'].flatMap((name) => [`${name} begins`, `${name} ends`]),
    );
    assert.deepEqual(
      [first.status, second.status, third.status],
      ['fulfilled', 'rejected', 'fulfilled'],
    );
  });
});
