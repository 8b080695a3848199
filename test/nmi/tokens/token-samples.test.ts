import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TokenStatus } from '../../../src/cache/token/cache.ts';
import { refusedIdentities, soonestExpiries } from '../../../src/nmi/tokens/token-samples.ts';

const imds = { identity: { kind: 'unnamed' } } as const;
const secret = {
  identity: {
    kind: 'entra',
    authority: 'https://login.microsoftonline.com',
    tenantId: 'tenant',
    clientId: 'client',
    credential: { kind: 'secret', secret: { namespace: 'shop', name: 'secret' } },
  },
} as const;

function token(expiresInMs: number, over: Partial<TokenStatus> = {}): TokenStatus {
  return {
    state: 'fresh',
    expiresInMs,
    isServed: true,
    refreshInMs: undefined,
    failedRefreshes: 0,
    ...over,
  };
}

describe('the remaining life of tokens', () => {
  it('is the shortest by source, with those of failing refreshes separate', () => {
    const samples = soonestExpiries([
      { request: imds, token: token(7_200_000) },
      { request: imds, token: token(3_600_000) },
      { request: imds, token: token(5_000_000) },
      { request: imds, token: token(900_000, { state: 'stale', failedRefreshes: 2 }) },
      { request: secret, token: token(-5_000, { state: 'refreshing', failedRefreshes: 1 }) },
    ]);
    assert.deepEqual(
      samples.map(({ metric, labels, value }) => [metric, labels, value]),
      [
        ['nmi_token_soonest_expiry_seconds', { source: 'imds', refresh: 'ok' }, 3_600],
        ['nmi_token_soonest_expiry_seconds', { source: 'imds', refresh: 'failing' }, 900],
        ['nmi_token_soonest_expiry_seconds', { source: 'secret', refresh: 'failing' }, 0],
      ],
    );
  });

  it('leaves out unused tokens, and is missing without any', () => {
    const idle = { request: imds, token: token(10, { state: 'idle' }) };
    assert.deepEqual(soonestExpiries([idle]), []);
    assert.deepEqual(soonestExpiries([]), []);
  });
});

describe('the identities that are refused', () => {
  const ownerOf = (name: string, namespace = 'shop') =>
    ({ kind: 'AzureIdentity', namespace, name, uid: name }) as const;
  const inWords = (samples: ReturnType<typeof refusedIdentities>) =>
    samples.map(({ metric, labels, value }) => [
      metric.replace('nmi_', ''),
      Object.values(labels ?? {}).join(' '),
      value,
    ]);

  it('have each a series with the life of its first token, by cause', () => {
    const samples = refusedIdentities([
      { owner: ownerOf('b'), reason: 'upstream_down', leftMs: 70_000 },
      { owner: ownerOf('a'), reason: 'credential_refused', leftMs: 7_200_000 },
      {
        owner: { ...ownerOf('robot'), kind: 'ServiceAccount' },
        reason: 'upstream_throttled',
        leftMs: 1_000,
      },
      { owner: undefined, reason: 'upstream_down', leftMs: 90_000 },
      { owner: undefined, reason: 'upstream_down', leftMs: -5 },
    ]);
    assert.deepEqual(inWords(samples), [
      ['identities_refused', 'platform upstream_down', 3],
      ['identities_refused', 'platform upstream_throttled', 1],
      ['identities_refused', 'object credential_refused', 1],
      ['identity_refused_expiry_seconds', ' node platform upstream_down', 0],
      [
        'identity_refused_expiry_seconds',
        'shop serviceaccount:robot platform upstream_throttled',
        1,
      ],
      ['identity_refused_expiry_seconds', 'shop b platform upstream_down', 70],
      ['identity_refused_expiry_seconds', 'shop a object credential_refused', 7_200],
    ]);
  });

  it('are 200, and the others share one series with the least life; none is left out of the number', () => {
    const samples = refusedIdentities(
      Array.from({ length: 250 }, (_, at) => ({
        owner: ownerOf(`i${at}`, 'hostile'),
        reason: 'credential_refused' as const,
        leftMs: (at + 1) * 1_000,
      })),
    );
    assert.equal(samples.length, 202);
    assert.deepEqual(inWords(samples)[0], ['identities_refused', 'object credential_refused', 250]);
    assert.deepEqual(inWords(samples).at(-1), [
      'identity_refused_expiry_seconds',
      'other other object credential_refused',
      201,
    ]);
  });
});
