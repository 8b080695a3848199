import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RenderedToken, type Token } from '../../../src/cache/token/token.ts';

describe('a rendered token', () => {
  const token: Token = {
    accessToken: 'ey.J"x',
    clientId: 'c',
    resource: 'https://x/?a="b"',
    expiresAtWallS: 2_000,
    notBeforeWallS: 900,
    extExpiresAtWallS: 2_600,
  };

  it('has the keys of the real service in its order, and only strings', () => {
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

  it('has no client id when its source returned none, and only its own extended life', () => {
    const bare = new RenderedToken({ ...token, clientId: '', extExpiresAtWallS: undefined });
    const body = JSON.parse(bare.body(1_000_000)) as Record<string, unknown>;
    assert.ok(!('client_id' in body));
    assert.deepEqual([body['expires_in'], body['ext_expires_in']], ['1000', '1000']);
  });

  it('contains the requested id, in alphabetical order', () => {
    const rendered = new RenderedToken(token);
    for (const [kind, name] of [
      ['object_id', 'object_id'],
      ['resource_id', 'msi_res_id'],
    ] as const) {
      const text = rendered.body(1_000_000, { kind, value: '/S/"é' });
      const body = JSON.parse(text) as Record<string, unknown>;
      assert.deepEqual(Object.keys(body), Object.keys(body).sort());
      const { [name]: asked, ...rest } = body;
      assert.equal(asked, '/S/"é');
      assert.deepEqual(rest, JSON.parse(rendered.body(1_000_000)));
    }
  });

  it('contains the time that is left, and never a negative one', () => {
    const rendered = new RenderedToken(token);
    assert.match(rendered.body(1_060_999), /"expires_in":"940","expires_on":"2000"/);
    assert.match(rendered.body(9_000_000), /"expires_in":"0"/);
  });

  it('that arrived while the clock was wrong reports no more time than the right clock would', () => {
    const leftAt = (clockAheadS: number, nowS: number): number => {
      const rendered = new RenderedToken({ ...token, clockAheadMs: clockAheadS * 1000 });
      const { expires_in: left, expires_on: end } = JSON.parse(rendered.body(nowS * 1000)) as {
        expires_in: string;
        expires_on: string;
      };
      assert.equal(end, '2000');
      return Number(left);
    };
    // An hour ahead: five minutes at most, so that nothing is kept if the clock is corrected.
    assert.deepEqual(
      [4_600, 5_299, 5_301, 5_599, 5_600, 9_000].map((nowS) => leftAt(3_600, nowS)),
      [300, 300, 299, 1, 0, 0],
    );
    assert.equal(leftAt(3_600, 1_000), 1_000, 'corrected');
    // Ten minutes ahead: the time by the wrong clock, while that is longer.
    assert.deepEqual(
      [1_600, 1_800, 2_200].map((nowS) => leftAt(600, nowS)),
      [400, 300, 300],
    );
    assert.deepEqual(
      [-2_600, -1_600].map((nowS) => leftAt(-3_600, nowS)),
      [1_000, 0],
    );
  });

  it('does not show the token when it is serialized by accident', () => {
    assert.ok(!JSON.stringify({ token: new RenderedToken(token) }).includes('ey.J'));
  });
});
