import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Token } from '../../../src/cache/token/token.ts';
import { identityOf, objectIdOf, parseImdsToken } from '../../../src/nmi/sources/token-fields.ts';

const nowWallMs = 1_700_000_000_000;

function bodyWith(fields: Record<string, unknown>): string {
  return JSON.stringify({ access_token: 'tok', client_id: 'c-1', ...fields });
}

describe('a body of the token endpoint', () => {
  it('is accepted with strings or numbers, with either expiry', () => {
    for (const fields of [
      { expires_on: '1700003600' },
      { expires_on: 1_700_003_600 },
      { expires_in: '3600' },
      { expires_in: 3600.5 },
    ]) {
      const parsed = parseImdsToken(bodyWith(fields), 'r', nowWallMs);
      assert.ok(parsed.ok);
      assert.equal(parsed.token.expiresAtWallS, 1_700_003_600);
      assert.equal(parsed.token.resource, 'r');
    }
  });

  it('is refused without a usable token or a live expiry', () => {
    for (const body of [
      '',
      '[]',
      '<html>',
      bodyWith({}),
      bodyWith({ expires_on: '' }),
      bodyWith({ expires_on: '1699999999' }),
      bodyWith({ expires_on: 'tomorrow' }),
      JSON.stringify({ expires_on: '1700003600' }),
      JSON.stringify({ access_token: '', expires_on: '1700003600' }),
      JSON.stringify({ access_token: 'a\r\nX: y', expires_on: '1700003600' }),
    ]) {
      const parsed = parseImdsToken(body, 'r', nowWallMs);
      assert.equal(parsed.ok, false, body);
    }
  });

  it('is dated by the time of the service when the clock is wrong', () => {
    const hourMs = 3_600_000;
    const told = (fields: Record<string, unknown>, aheadMs: number) =>
      parseImdsToken(bodyWith(fields), 'r', nowWallMs, aheadMs);
    const ahead = told({ expires_on: '1699999999' }, hourMs);
    assert.ok(ahead.ok && ahead.token.expiresAtWallS === 1_699_999_999);
    assert.equal(ahead.token.clockAheadMs, hourMs);
    assert.ok(!told({ expires_on: '1700003600' }, -hourMs).ok);
    const relative = told({ expires_in: '60' }, hourMs);
    assert.ok(relative.ok && relative.token.expiresAtWallS === 1_700_000_060 - 3_600);
  });

  it('never makes the parser throw', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (body) => {
        parseImdsToken(body, 'r', nowWallMs);
        objectIdOf(body);
      }),
    );
  });

  it('keeps its times and names, and no others', () => {
    const whole = parseImdsToken(
      bodyWith({ expires_in: '60', ext_expires_in: '120', not_before: '1699999000' }),
      'R',
      nowWallMs,
    );
    assert.deepEqual(whole, {
      ok: true,
      token: {
        accessToken: 'tok',
        clientId: 'c-1',
        resource: 'R',
        expiresAtWallS: 1_700_000_060,
        notBeforeWallS: 1_699_999_000,
        extExpiresAtWallS: 1_700_000_120,
      },
    });
    const bare = parseImdsToken(bodyWith({ expires_in: '60', client_id: 7 }), 'r', nowWallMs);
    assert.ok(bare.ok);
    const { clientId, notBeforeWallS, extExpiresAtWallS } = bare.token;
    assert.deepEqual([clientId, notBeforeWallS, extExpiresAtWallS], ['', 1_700_000_000, undefined]);
    const later = parseImdsToken(
      bodyWith({ expires_in: '60', not_before: '1700000900' }),
      'r',
      nowWallMs,
    );
    assert.equal(later.ok && later.token.notBeforeWallS, 1_700_000_000, 'valid from now on');
  });

  it('is refused with the reason', () => {
    const problemOf = (body: string) => {
      const parsed = parseImdsToken(body, 'r', nowWallMs);
      return parsed.ok ? 'nothing' : parsed.problem;
    };
    assert.equal(problemOf('[]'), 'something that is not a JSON object');
    assert.equal(problemOf('{"access_token":7}'), 'without a usable access_token');
    assert.equal(problemOf(bodyWith({})), 'without an expiry');
    assert.equal(problemOf(bodyWith({ expires_in: '0' })), 'with a token that has expired');
  });
});

describe('the identity of a token', () => {
  const tokenWith = (claims: unknown, clientId = ''): Token => ({
    accessToken: `x.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.y`,
    clientId,
    resource: 'r',
    expiresAtWallS: 0,
    notBeforeWallS: 0,
    extExpiresAtWallS: undefined,
  });

  it('is read from its claims, in normal form', () => {
    const claims = { appid: 'ABC', oid: ' DEF', xms_mirid: 'subscriptions/X/' };
    assert.deepEqual(identityOf(tokenWith(claims)), {
      client_id: 'abc',
      object_id: 'def',
      resource_id: '/subscriptions/x',
    });
    assert.equal(objectIdOf(tokenWith(claims).accessToken), 'def');
    assert.equal(
      identityOf(tokenWith(claims, 'Other')).client_id,
      'other',
      'the answer has priority',
    );
  });

  it('is unknown for a token without claims', () => {
    const nothing = { client_id: undefined, object_id: undefined, resource_id: undefined };
    for (const claims of [{}, [], 'x', { oid: 7, appid: '' }]) {
      assert.deepEqual(identityOf(tokenWith(claims)), nothing);
    }
    assert.equal(objectIdOf('opaque'), undefined);
  });
});
