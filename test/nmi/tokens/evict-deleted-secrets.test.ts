import type { ObjectName } from '../../../src/cache/index/object-name.ts';
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { evictDeletedSecrets } from '../../../src/nmi/tokens/evict-deleted-secrets.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-stand.ts';

function open() {
  const clock = new HandClock();
  const inUse = new Set(['one', 'two', 'three']);
  const gone = new Set<string>();
  const looked: string[] = [];
  const told: string[] = [];
  const log = {
    debug: () => undefined,
    info: (fields: object) => told.push(JSON.stringify(fields)),
    warn: () => undefined,
    error: () => undefined,
  };
  const broker = {
    secretsInUse: () => [...inUse].map((name) => ({ namespace: 'default', name })),
    dropTokensBySecret: ({ name }: ObjectName) => void inUse.delete(name),
  };
  const reader = {
    isGone: ({ name }: ObjectName) => {
      looked.push(name);
      return Promise.resolve(gone.has(name));
    },
  };
  const sweep = evictDeletedSecrets({ broker, reader, clock, log });
  return { clock, inUse, gone, looked, told, sweep };
}

describe('tokens of a Secret that is gone', () => {
  it('are dropped within a minute, and no others', async () => {
    const stand = open();
    await pass(stand.clock, 60_000);
    assert.deepEqual([...stand.inUse], ['one', 'two', 'three']);
    stand.gone.add('two');
    await pass(stand.clock, 60_000);
    assert.deepEqual([...stand.inUse], ['one', 'three']);
    assert.deepEqual(stand.told, ['{"object":"Secret default/two"}']);
    await pass(stand.clock, 60_000);
    assert.deepEqual(stand.looked.slice(-2), ['one', 'three']);
    stand.sweep[Symbol.dispose]();
  });

  it('are not looked for any more after the end, not even in the middle of a look', async () => {
    const stand = open();
    stand.gone.add('one');
    stand.clock.advance(60_000);
    stand.sweep[Symbol.dispose]();
    await pass(stand.clock, 120_000);
    assert.deepEqual(stand.looked, ['one']);
    assert.deepEqual([...stand.inUse], ['one', 'two', 'three']);
    assert.deepEqual(stand.clock.armed, []);
  });
});
