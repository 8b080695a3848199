import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseEntraToken } from '../../../src/nmi/sources/token-fields.ts';
import { jwtOf } from './entra/token-server.ts';

const nowS = 1_700_000_000;
const asked = { clientId: 'c-1', resource: 'https://R//' };

function parse(fields: object): ReturnType<typeof parseEntraToken> {
  return parseEntraToken(JSON.stringify(fields), asked, nowS * 1000 + 999);
}

describe('a token from Entra ID', () => {
  it('has the times of its own claims, and the resource spelling of the request', () => {
    const accessToken = jwtOf({ exp: nowS + 3_700, nbf: nowS - 300, appid: 'another' });
    const parsed = parse({
      token_type: 'Bearer',
      expires_in: 3_599,
      ext_expires_in: 7_199,
      refresh_in: 1_800,
      access_token: accessToken,
    });
    assert.deepEqual(parsed, {
      ok: true,
      token: {
        accessToken,
        clientId: 'c-1',
        resource: 'https://R//',
        expiresAtWallS: nowS + 3_700,
        notBeforeWallS: nowS - 300,
        extExpiresAtWallS: nowS + 7_199,
        livesForS: 3_599,
        refreshAtWallS: nowS + 1_800,
      },
    });
  });

  it('that is not a JWT has the life in the answer, from now on', () => {
    for (const accessToken of ['opaque', 'a.b.c', 'a.e30.c', 'header.key.iv.text.tag']) {
      const parsed = parse({ access_token: accessToken, expires_in: '3599' });
      assert.ok(parsed.ok);
      assert.equal(parsed.token.expiresAtWallS, nowS + 3_599);
      assert.equal(parsed.token.notBeforeWallS, nowS);
      assert.equal(parsed.token.extExpiresAtWallS, undefined);
      assert.equal('refreshAtWallS' in parsed.token, false);
    }
  });

  it('is valid from now on at the latest', () => {
    const parsed = parse({ access_token: jwtOf({ exp: nowS + 60, nbf: nowS + 30 }) });
    assert.ok(parsed.ok && parsed.token.notBeforeWallS === nowS);
    assert.equal('livesForS' in parsed.token, false);
  });

  it('that arrives while the clock is wrong is dated by the time of Entra ID', () => {
    const hourMs = 3_600_000;
    const body = (exp: number) =>
      JSON.stringify({ access_token: jwtOf({ exp }), expires_in: 3_599, refresh_in: 1_800 });
    const ahead = parseEntraToken(body(nowS - 1), asked, nowS * 1000, hourMs);
    assert.ok(ahead.ok && ahead.token.clockAheadMs === hourMs);
    assert.equal(ahead.token.expiresAtWallS, nowS - 1, 'as in the token');
    assert.equal(ahead.token.refreshAtWallS, nowS + 1_800, 'by the clock of this node');
    const behind = parseEntraToken(body(nowS + 3_599), asked, nowS * 1000, -hourMs);
    assert.ok(!behind.ok && /has expired/.test(behind.problem));
    const opaque = JSON.stringify({ access_token: 'opaque', expires_in: 3_599 });
    const parsed = parseEntraToken(opaque, asked, nowS * 1000, hourMs);
    assert.ok(parsed.ok && parsed.token.expiresAtWallS === nowS - 1);
  });

  for (const [name, fields] of [
    ['without a token', { expires_in: 60 }],
    ['with an empty token', { access_token: '', expires_in: 60 }],
    ['with a token for two headers', { access_token: 'a\r\nX: y', expires_in: 60 }],
    ['with a token that is no string', { access_token: 7, expires_in: 60 }],
    ['without an expiry', { access_token: 'opaque' }],
    ['with an expired token', { access_token: jwtOf({ exp: nowS }), expires_in: 60 }],
    ['with a dead life', { access_token: 'opaque', expires_in: 0 }],
  ] as const) {
    it(`is refused ${name}`, () => {
      assert.equal(parse(fields).ok, false);
    });
  }

  it('is parsed without throwing, whatever it is', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        parseEntraToken(text, asked, nowS * 1000);
        const parsed = parse({ access_token: `x.${text}.y`, expires_in: text });
        assert.ok(!parsed.ok || parsed.token.expiresAtWallS > nowS);
      }),
    );
  });
});
