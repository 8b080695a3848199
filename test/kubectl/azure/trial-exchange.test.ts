import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { tryExchange } from '../../../src/kubectl/azure/trial-exchange.ts';
import type { Io } from '../../../src/kubectl/base/io.ts';

const assertion = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl';
const trial = {
  authority: 'https://login.example',
  tenantId: 'tenant/../x',
  clientId: 'client',
  assertion,
};

describe('a trial exchange', () => {
  const answered = (status: number, body: object) => {
    const posts: Parameters<Io['post']>[] = [];
    const post: Io['post'] = (...args) => {
      posts.push(args);
      return Promise.resolve({ status, body: JSON.stringify(body) });
    };
    return { posts, result: tryExchange({ post }, trial) };
  };

  it('sends the request of an SDK, only to the authority and the tenant', async () => {
    const { posts, result } = answered(200, { access_token: 'secret' });
    assert.deepEqual(await result, { ok: true });
    assert.deepEqual(posts, [
      [
        'https://login.example/tenant%2F..%2Fx/oauth2/v2.0/token',
        {
          grant_type: 'client_credentials',
          client_id: 'client',
          client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
          client_assertion: assertion,
          scope: 'https://management.azure.com/.default',
        },
      ],
    ]);
  });

  it('reports a refusal like the agent, and never the assertion', async () => {
    const error = {
      error: 'invalid_client',
      error_codes: [700213],
      error_description: 'AADSTS700213: No matching federated identity record found.',
    };
    const refused = await answered(401, error).result;
    assert.ok(!refused.ok);
    assert.equal(refused.reason, 'federation_refused');
    assert.match(refused.detail, /AADSTS700213/);
    const echoed = await answered(400, { ...error, error_description: `no: ${assertion}` }).result;
    assert.ok(!echoed.ok);
    assert.doesNotMatch(echoed.detail, /eyJ/);
  });

  it('succeeds if only the scope is of another cloud', async () => {
    const error = { error: 'invalid_resource', error_codes: [500011], error_description: 'x' };
    assert.deepEqual(await answered(400, error).result, { ok: true });
  });

  it('fails for an answer without a token, and without an answer', async () => {
    assert.equal((await answered(200, {}).result).ok, false);
    const none = await tryExchange({ post: () => Promise.resolve(undefined) }, trial);
    assert.ok(!none.ok);
    assert.match(none.detail, /^https:\/\/login\.example cannot be reached/);
  });
});
