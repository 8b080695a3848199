/** Metrics of tokens, refused identities and certificates, and the eviction of deleted Secrets. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ObjectName } from '../../../../src/cache/index/object-name.ts';
import type { TokenStatus } from '../../../../src/cache/token/cache.ts';
import type { Sample } from '../../../../src/nmi/base/part.ts';
import { CertificateExpiries } from '../../../../src/nmi/tokens/certificate-expiries.ts';
import { evictDeletedSecrets } from '../../../../src/nmi/tokens/evict-deleted-secrets.ts';
import { refusedIdentities, soonestExpiries } from '../../../../src/nmi/tokens/token-samples.ts';
import { createEntraIdentity } from '../../../support/entra-identity.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { pass } from '../../../support/token-fixture.ts';

const imds = { identity: { kind: 'unnamed' } } as const;
const bySecret = { identity: createEntraIdentity() };

function token(expiresInMs: number, state: TokenStatus['state'], failedRefreshes = 0): TokenStatus {
  return { state, expiresInMs, failedRefreshes, isServed: true, refreshInMs: undefined };
}

/** Name, labels and value of each, without the prefix of all. */
function inWords(samples: readonly Sample[]): readonly string[] {
  return samples.map(({ metric, labels, value }) =>
    [metric.replace('nmi_', ''), ...Object.values(labels ?? {}), value].join(' '),
  );
}

describe('the remaining life of tokens', () => {
  it('is the shortest by source, with those of failing refreshes separate', () => {
    const samples = soonestExpiries([
      { request: imds, token: token(7_200_000, 'fresh') },
      { request: imds, token: token(3_600_000, 'fresh') },
      { request: imds, token: token(5_000_000, 'fresh') },
      { request: imds, token: token(10, 'idle') },
      { request: imds, token: token(900_000, 'stale', 2) },
      { request: bySecret, token: token(-5_000, 'refreshing', 1) },
    ]);
    assert.deepEqual(inWords(samples), [
      'token_soonest_expiry_seconds imds ok 3600',
      'token_soonest_expiry_seconds imds failing 900',
      'token_soonest_expiry_seconds secret failing 0',
    ]);
    assert.deepEqual(soonestExpiries([]), []);
  });
});

describe('the identities that are refused', () => {
  const ownerOf = (name: string, namespace = 'shop') =>
    ({ kind: 'AzureIdentity', namespace, name, uid: name }) as const;
  const robot = { ...ownerOf('robot'), kind: 'ServiceAccount' } as const;

  it('have each a series with the life of its first token, by cause', () => {
    const samples = refusedIdentities([
      { owner: ownerOf('b'), reason: 'upstream_down', leftMs: 70_000 },
      { owner: ownerOf('a'), reason: 'credential_refused', leftMs: 7_200_000 },
      { owner: robot, reason: 'upstream_throttled', leftMs: 1_000 },
      { owner: undefined, reason: 'upstream_down', leftMs: 90_000 },
      { owner: undefined, reason: 'upstream_down', leftMs: -5 },
    ]);
    assert.deepEqual(inWords(samples), [
      'identities_refused platform upstream_down 3',
      'identities_refused platform upstream_throttled 1',
      'identities_refused object credential_refused 1',
      'identity_refused_expiry_seconds  node platform upstream_down 0',
      'identity_refused_expiry_seconds shop serviceaccount:robot platform upstream_throttled 1',
      'identity_refused_expiry_seconds shop b platform upstream_down 70',
      'identity_refused_expiry_seconds shop a object credential_refused 7200',
    ]);
  });

  it('are 200, and the others share one series with the least life; none is left out of the number', () => {
    const reason = 'credential_refused' as const;
    const refused = Array.from({ length: 250 }, (_, at) => ({
      owner: ownerOf(`i${at}`, 'hostile'),
      reason,
      leftMs: (at + 1) * 1_000,
    }));
    const samples = inWords(refusedIdentities(refused));
    assert.equal(samples.length, 202);
    assert.equal(samples[0], `identities_refused object ${reason} 250`);
    const last = `identity_refused_expiry_seconds other other object ${reason} 201`;
    assert.equal(samples.at(-1), last);
  });
});

function openExpiries() {
  const unneeded = new Set<string>();
  const known = new CertificateExpiries((credential: string) => !unneeded.has(credential));
  const note = (secret: ObjectName | undefined, expiresAtWallMs: number) => {
    const credential = secret === undefined ? '' : `${secret.namespace}/${secret.name}`;
    known.note(credential, secret, expiresAtWallMs);
  };
  const found = () => inWords(known.samples()).map((each) => each.replace(/^\S+ /, ''));
  return { note, unneeded, found };
}

describe('the expiry of certificates', () => {
  it('is the last one read of each Secret, for as long as it is needed', () => {
    const { note, unneeded, found } = openExpiries();
    note({ namespace: 'a', name: 's' }, 1_000);
    note({ namespace: 'a', name: 's' }, 2_000);
    note({ namespace: 'b', name: 's' }, 3_500);
    note(undefined, 4_000);
    assert.deepEqual(found(), ['a s 2', 'b s 3.5']);
    unneeded.add('a/s');
    assert.deepEqual(found(), ['b s 3.5']);
    unneeded.clear();
    assert.deepEqual(found(), ['b s 3.5'], 'the dropped one is removed');
  });

  it('is kept for 20 Secrets of a namespace, the first to expire, and for 50 namespaces', () => {
    const { note, unneeded, found } = openExpiries();
    for (let index = 0; index < 100; index++) {
      note({ namespace: 'hostile', name: `s-${index}` }, (100 - index) * 1_000);
    }
    assert.equal(found().length, 20);
    assert.ok(found().includes('hostile s-99 1'));
    assert.ok(!found().includes('hostile s-0 100'));
    for (let index = 0; index < 100; index++) {
      note({ namespace: `ns-${index}`, name: 's' }, 1_000);
    }
    assert.equal(found().length, 20 + 49);
    unneeded.add('ns-0/s');
    note({ namespace: 'late', name: 's' }, 1_000);
    assert.ok(found().includes('late s 1'), 'replaces one that is not needed');
  });
});

function openSweep() {
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
    const fixture = openSweep();
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
    const fixture = openSweep();
    fixture.gone.add('one');
    fixture.clock.advance(60_000);
    fixture.sweep[Symbol.dispose]();
    await pass(fixture.clock, 120_000);
    assert.deepEqual(fixture.looked, ['one']);
    assert.deepEqual([...fixture.inUse], ['one', 'two', 'three']);
    assert.deepEqual(fixture.clock.armed, []);
  });
});
