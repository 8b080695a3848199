import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TokenStatus } from '../../../src/cache/token/cache.ts';
import { soonestExpiries } from '../../../src/nmi/tokens/token-samples.ts';

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
