import type { ObjectName } from '../../../src/cache/index/object-name.ts';
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { evictDeletedSecrets } from '../../../src/nmi/tokens/evict-deleted-secrets.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

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
    check: ({ name }: ObjectName) => {
      looked.push(name);
      const missing = { kind: 'missing', problem: '' } as const;
      return Promise.resolve(gone.has(name) ? missing : ({ kind: 'readable' } as const));
    },
  };
  const sweep = evictDeletedSecrets({ broker, reader, clock, log });
  return { clock, inUse, gone, looked, told, sweep };
}

describe('tokens of a deleted Secret', () => {
  it('are dropped within a minute, and no others', async () => {
    const fixture = open();
    await pass(fixture.clock, 60_000);
    assert.deepEqual([...fixture.inUse], ['one', 'two', 'three']);
    fixture.gone.add('two');
    await pass(fixture.clock, 60_000);
    assert.deepEqual([...fixture.inUse], ['one', 'three']);
    assert.deepEqual(fixture.told, ['{"object":"Secret default/two"}']);
    await pass(fixture.clock, 60_000);
    assert.deepEqual(fixture.looked.slice(-2), ['one', 'three']);
    fixture.sweep[Symbol.dispose]();
    assert.deepEqual(fixture.clock.armed, []);
  });

  it('are not searched any more after disposal, not even during a search', async () => {
    const fixture = open();
    fixture.gone.add('one');
    fixture.clock.advance(60_000);
    fixture.sweep[Symbol.dispose]();
    await pass(fixture.clock, 120_000);
    assert.deepEqual(fixture.looked, ['one']);
    assert.deepEqual([...fixture.inUse], ['one', 'two', 'three']);
    assert.deepEqual(fixture.clock.armed, []);
  });
});
