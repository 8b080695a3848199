import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { identityKey, tokenKey } from '../../../src/nmi/grants/cache-key.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { parseTokenQuery } from '../../../src/nmi/server/token-query.ts';
import { createPod } from '../../support/cache-objects.ts';

describe('the name of an upstream identity', () => {
  it('is its id in any letter case, separate for each kind of id', () => {
    const one = identityKey({ kind: 'client_id', value: 'AB-c' });
    assert.equal(one, identityKey({ kind: 'client_id', value: 'ab-C' }));
    assert.notEqual(one, identityKey({ kind: 'object_id', value: 'ab-c' }));
    assert.notEqual(one, identityKey({ kind: 'client_id', value: 'ab-d' }));
    assert.equal(identityKey({ kind: 'unnamed' }), '');
  });

  it('keeps letters of other alphabets: the Kelvin sign is not a k', () => {
    const key = (value: string): string => identityKey({ kind: 'resource_id', value });
    assert.notEqual(key('/\u212a'), key('/k'));
    assert.notEqual(key('/A\u212a'), key('/ak'));
    assert.notEqual(key('/É'), key('/é'));
  });
});

describe('the name of a revoked identity', () => {
  it('is another one for each time, so that earlier tokens are not found', () => {
    const credential = { kind: 'federated_node', audience: 'api://x' } as const;
    for (const identity of [
      { kind: 'client_id', value: 'a' },
      { kind: 'entra', authority: 'https://l', tenantId: 't', clientId: 'c', credential },
    ] as const) {
      const keys = [undefined, 1, 2].map((notBeforeWallMs) =>
        identityKey(notBeforeWallMs === undefined ? identity : { ...identity, notBeforeWallMs }),
      );
      assert.equal(new Set(keys).size, 3);
    }
  });

  it('is none that an excepted pod can request', () => {
    const revoked = identityKey({ kind: 'client_id', value: 'a', notBeforeWallMs: 1 });
    const suffix = revoked.slice(identityKey({ kind: 'client_id', value: 'a' }).length);
    const query = `api-version=2018-02-01&resource=r&client_id=${encodeURIComponent(`a${suffix}`)}`;
    assert.equal(parseTokenQuery(query).kind, 'refused');
  });
});

describe('the name of an identity of Entra ID', () => {
  const guid = '22729e47-74ce-4b43-8eea-aab5f2073301';
  const upstreams = new UpstreamResolver(() => ({
    ok: true,
    authority: 'https://login.example',
    audience: 'api://exchange',
    accountAudience: 'api://exchange',
  }));
  const keyFor = (account: string, clientId = guid, tenantId = 'a.example'): string => {
    const pod = createPod({ serviceAccount: account });
    const choice = upstreams.ofServiceAccount(pod, clientId, tenantId);
    assert.ok(choice.kind === 'upstream');
    return identityKey(choice.upstream);
  };

  it('contains authority, tenant, application and credential', () => {
    const key = keyFor('robot');
    assert.equal(key, keyFor('robot', guid.toUpperCase(), 'A.example'));
    assert.ok(key.startsWith(`https://login.example/a.example/${guid} `), key);
    const others = [
      keyFor('other'),
      keyFor('robot', guid.replace('1', '2')),
      keyFor('robot', guid, 'b.example'),
    ];
    assert.equal(new Set([key, ...others]).size, 4);
  });
});

describe('the name of a token', () => {
  it('contains its source, its identity and its resource exactly as requested', () => {
    const unnamed = { kind: 'unnamed' } as const;
    assert.equal(tokenKey(unnamed, 'https://X/'), 'imds\n\nhttps://X/');
    assert.notEqual(tokenKey(unnamed, 'https://X/'), tokenKey(unnamed, 'https://x/'));
    const named = tokenKey({ kind: 'client_id', value: 'A' }, 'r');
    assert.equal(named, 'imds\nclient_id=a\nr');
  });
});
