import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RenderedToken, type Token } from '../../src/cache/token.ts';

describe('a rendered token', () => {
  const token: Token = {
    accessToken: 'ey.J"x',
    clientId: 'c',
    resource: 'https://x/?a="b"',
    expiresAtWallS: 2_000,
    notBeforeWallS: 900,
    extExpiresAtWallS: 2_600,
  };

  it('has the keys of the real service in its order, and strings only', () => {
    const body = JSON.parse(new RenderedToken(token).body(1_000_000)) as Record<string, unknown>;
    assert.deepEqual(body, {
      access_token: 'ey.J"x',
      client_id: 'c',
      expires_in: '1000',
      expires_on: '2000',
      ext_expires_in: '1600',
      not_before: '900',
      resource: 'https://x/?a="b"',
      token_type: 'Bearer',
    });
    assert.deepEqual(Object.keys(body), Object.keys(body).sort());
  });

  it('tells the time that is left, and never a negative one', () => {
    const rendered = new RenderedToken(token);
    assert.match(rendered.body(1_060_999), /"expires_in":"940","expires_on":"2000"/);
    assert.match(rendered.body(9_000_000), /"expires_in":"0"/);
  });

  it('does not show the token when it is serialised by accident', () => {
    assert.ok(!JSON.stringify({ token: new RenderedToken(token) }).includes('ey.J'));
  });
});
