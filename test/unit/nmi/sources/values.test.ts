/** Tokens, clocks and identities as the sources read them: everything here is pure. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Token } from '../../../../src/cache/token/token.ts';
import { clockAheadMs } from '../../../../src/nmi/sources/clock-skew.ts';
import { parseNodeIdentity } from '../../../../src/nmi/sources/node-identity.ts';
import {
  claimsOf,
  identityOf,
  isHeaderSafe,
  objectIdOf,
  parseEntraToken,
  parseImdsToken,
  seconds,
} from '../../../../src/nmi/sources/token-fields.ts';
import {
  legsOf,
  sourceNameOf,
  titleOfLeg,
  titlesBefore,
  type UpstreamIdentity,
} from '../../../../src/nmi/sources/upstream-identity.ts';
import { jwtOf } from '../../../support/jwt.ts';

const nowS = 1_700_000_000;
const hourMs = 3_600_000;

describe('the clock of an upstream', () => {
  const nowMs = Date.UTC(2026, 0, 1, 12);
  const dateAt = (aheadMs: number) => new Date(nowMs - aheadMs).toUTCString();

  it('is read from the date of its answer, tolerates a minute, and is unknown if that is invalid', () => {
    for (const aheadMs of [hourMs, -hourMs, 90_000, -90_000, 24 * hourMs]) {
      assert.equal(clockAheadMs(dateAt(aheadMs), nowMs), aheadMs);
    }
    const agreeing = [0, 1_000, 60_000, -60_000].map(dateAt);
    const invalid = [undefined, '', 'soon', dateAt(25 * hourMs), [dateAt(hourMs), dateAt(0)]];
    for (const date of [...agreeing, ...invalid, 'Thu, 01 Jan 1970 00:00:00 GMT']) {
      assert.equal(clockAheadMs(date, nowMs), 0, String(date));
    }
  });
});

describe('the fields of a token response', () => {
  it('are whole seconds, as a number or as digits', () => {
    assert.deepEqual([3600, 3600.9, '3600', '0'].map(seconds), [3600, 3600, 3600, 0]);
    for (const value of [Infinity, NaN, '', '1.5', '-1', ' 1', '1e3', '1'.repeat(13), null, {}]) {
      assert.equal(seconds(value), undefined, JSON.stringify(value));
    }
    assert.equal(seconds('9'.repeat(12)), 999_999_999_999);
  });

  it('are safe for a header as one line of visible ASCII', () => {
    assert.ok(isHeaderSafe('ey.J~!'));
    for (const text of ['', 'a b', 'a\n', '\na', 'a\r\nX: y', 'é', 'a\x7f']) {
      assert.ok(!isHeaderSafe(text), JSON.stringify(text));
    }
  });

  it('have claims only if the token is a JWT', () => {
    assert.deepEqual(claimsOf(jwtOf({ oid: 'x' })), { oid: 'x' });
    for (const token of ['opaque', '', 'a.b', 'a.W10.c']) assert.equal(claimsOf(token), undefined);
  });
});

describe('a token from IMDS', () => {
  const body = (fields: object) =>
    JSON.stringify({ access_token: 'tok', client_id: 'c-1', ...fields });
  const parse = (text: string, aheadMs = 0) => parseImdsToken(text, 'R', nowS * 1000, aheadMs);
  const own = { accessToken: 'tok', clientId: 'c-1', resource: 'R' };

  it('keeps its times and names, and no others', () => {
    const [notBeforeWallS, expiresAtWallS] = [nowS, nowS + 3_600];
    const bare = { ...own, expiresAtWallS, notBeforeWallS, extExpiresAtWallS: undefined };
    for (const [fields, token] of [
      [{ expires_on: '1700003600' }, bare],
      [{ expires_on: 1_700_003_600 }, bare],
      [{ expires_in: '3600' }, bare],
      [
        { expires_in: 3600.5, client_id: 7 },
        { ...bare, clientId: '' },
      ],
      // Valid from now on at the latest.
      [{ expires_in: '3600', not_before: '1700000900' }, bare],
      [
        { expires_in: '3600', ext_expires_in: '7200', not_before: '1699999000' },
        { ...bare, notBeforeWallS: 1_699_999_000, extExpiresAtWallS: nowS + 7_200 },
      ],
    ] as const) {
      assert.deepEqual(parse(body(fields)), { ok: true, token });
    }
  });

  it('is refused with the reason', () => {
    const noObject = 'something that is not a JSON object';
    const [noToken, noExpiry] = ['without a usable access_token', 'without an expiry'];
    for (const [text, problem] of [
      ['', noObject],
      ['[]', noObject],
      ['<html>', noObject],
      ['{"access_token":7}', noToken],
      [JSON.stringify({ expires_on: '1700003600' }), noToken],
      [body({ access_token: '', expires_on: '1700003600' }), noToken],
      [body({ access_token: 'a\r\nX: y', expires_on: '1700003600' }), noToken],
      [body({}), noExpiry],
      [body({ expires_on: '' }), noExpiry],
      [body({ expires_on: 'tomorrow' }), noExpiry],
      [body({ expires_on: '1699999999' }), 'with a token that has expired'],
      [body({ expires_in: '0' }), 'with a token that has expired'],
    ] as const) {
      assert.deepEqual(parse(text), { ok: false, problem }, text);
    }
  });

  it('is dated by the time of the service when the clock is wrong', () => {
    const ahead = parse(body({ expires_on: '1699999999' }), hourMs);
    assert.ok(ahead.ok && ahead.token.expiresAtWallS === 1_699_999_999);
    assert.equal(ahead.token.clockAheadMs, hourMs);
    assert.ok(!parse(body({ expires_on: '1700003600' }), -hourMs).ok);
    const relative = parse(body({ expires_in: '60' }), hourMs);
    assert.ok(relative.ok && relative.token.expiresAtWallS === nowS + 60 - 3_600);
  });
});

describe('a token from Entra ID', () => {
  const asked = { clientId: 'c-1', resource: 'https://R//' };
  const parse = (fields: object, aheadMs = 0) =>
    parseEntraToken(JSON.stringify(fields), asked, nowS * 1000 + 999, aheadMs);

  it('has the times of its own claims, and the resource spelling of the request', () => {
    const accessToken = jwtOf({ exp: nowS + 3_700, nbf: nowS - 300, appid: 'another' });
    const lives = { expires_in: 3_599, ext_expires_in: 7_199, refresh_in: 1_800 };
    assert.deepEqual(parse({ token_type: 'Bearer', ...lives, access_token: accessToken }), {
      ok: true,
      token: {
        ...asked,
        accessToken,
        expiresAtWallS: nowS + 3_700,
        notBeforeWallS: nowS - 300,
        extExpiresAtWallS: nowS + 7_199,
        livesForS: 3_599,
        refreshAtWallS: nowS + 1_800,
      },
    });
  });

  it('that is not a JWT has the life in the answer, from now on', () => {
    const times = { expiresAtWallS: nowS + 3_599, notBeforeWallS: nowS, livesForS: 3_599 };
    for (const accessToken of ['opaque', 'a.b.c', 'a.e30.c', 'header.key.iv.text.tag']) {
      assert.deepEqual(parse({ access_token: accessToken, expires_in: '3599' }), {
        ok: true,
        token: { ...asked, accessToken, ...times, extExpiresAtWallS: undefined },
      });
    }
  });

  it('is valid from now on at the latest', () => {
    const parsed = parse({ access_token: jwtOf({ exp: nowS + 60, nbf: nowS + 30 }) });
    assert.ok(parsed.ok && parsed.token.notBeforeWallS === nowS);
    assert.equal('livesForS' in parsed.token, false);
  });

  it('that arrives while the clock is wrong is dated by the time of Entra ID', () => {
    const fields = (exp: number) => ({ access_token: jwtOf({ exp }), refresh_in: 1_800 });
    const ahead = parse(fields(nowS - 1), hourMs);
    assert.ok(ahead.ok && ahead.token.clockAheadMs === hourMs);
    assert.equal(ahead.token.expiresAtWallS, nowS - 1, 'as in the token');
    assert.equal(ahead.token.refreshAtWallS, nowS + 1_800, 'by the clock of this node');
    const behind = parse(fields(nowS + 3_599), -hourMs);
    assert.ok(!behind.ok && /has expired/.test(behind.problem));
    const opaque = parse({ access_token: 'opaque', expires_in: 3_599 }, hourMs);
    assert.ok(opaque.ok && opaque.token.expiresAtWallS === nowS - 1);
  });

  it('is refused without a usable token or a live expiry', () => {
    for (const fields of [
      { expires_in: 60 },
      { access_token: '', expires_in: 60 },
      { access_token: 'a\r\nX: y', expires_in: 60 },
      { access_token: 7, expires_in: 60 },
      { access_token: 'opaque' },
      { access_token: jwtOf({ exp: nowS }), expires_in: 60 },
      { access_token: 'opaque', expires_in: 0 },
    ]) {
      assert.equal(parse(fields).ok, false, JSON.stringify(fields));
    }
  });

  it('is parsed without throwing, whatever it is, and so is one from IMDS', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        parseEntraToken(text, asked, nowS * 1000);
        parseImdsToken(text, 'r', nowS * 1000);
        objectIdOf(text);
        const parsed = parse({ access_token: `x.${text}.y`, expires_in: text });
        assert.ok(!parsed.ok || parsed.token.expiresAtWallS > nowS);
      }),
    );
  });
});

describe('the identity of a token', () => {
  const of = (claims: unknown, clientId = '') =>
    identityOf({ accessToken: jwtOf(claims as object), clientId } as Token);

  it('is read from its claims, in normal form, and the client id of the answer has priority', () => {
    const claims = { appid: 'ABC', oid: ' DEF', xms_mirid: 'subscriptions/X/' };
    const ids = { client_id: 'abc', object_id: 'def', resource_id: '/subscriptions/x' };
    assert.deepEqual(of(claims), ids);
    assert.deepEqual(of(claims, 'Other'), { ...ids, client_id: 'other' });
    assert.equal(objectIdOf(jwtOf(claims)), 'def');
  });

  it('is unknown for a token without claims', () => {
    const nothing = { client_id: undefined, object_id: undefined, resource_id: undefined };
    for (const claims of [{}, [], 'x', { oid: 7, appid: '' }]) {
      assert.deepEqual(of(claims), nothing);
    }
    assert.equal(objectIdOf('opaque'), undefined);
  });
});

describe('an identity of the node', () => {
  const clientId = 'AAAAAAAA-1111-4111-8111-111111111111';
  const resourceId =
    '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';

  it('is named by its client id, or by its resource id if it has none', () => {
    const since = { notBeforeWallMs: 7 };
    const byClient = { kind: 'client_id', value: clientId, ...since };
    assert.deepEqual(parseNodeIdentity({ clientId, resourceId }, since), byClient);
    const byResource = { kind: 'resource_id', value: resourceId };
    assert.deepEqual(parseNodeIdentity({ clientId: '', resourceId }, {}), byResource);
  });

  it('is none without a well-formed id', () => {
    for (const [client, resource, problem] of [
      ['', '', /names neither/],
      // .NET takes it for blank.
      ['\u0085', resourceId, /spec\.clientID that is no GUID/],
      ['', '/subscriptions/s', /spec\.resourceID that is not/],
    ] as const) {
      const parsed = parseNodeIdentity({ clientId: client, resourceId: resource }, {});
      assert.ok(typeof parsed === 'string');
      assert.match(parsed, problem);
    }
  });
});

describe('the legs of an identity', () => {
  const audience = 'api://x';
  const inTenant = { kind: 'entra', authority: 'https://e', tenantId: 't' } as const;
  const managed = { kind: 'resource_id', value: '/subscriptions/s/identities/m' } as const;
  const credential = { kind: 'chained', assertedBy: managed, audience } as const;
  const application: UpstreamIdentity = { ...inTenant, clientId: 'app', credential };
  const blueprint = { ...inTenant, clientId: 'bp', credential, agentIdentity: 'agent' } as const;
  const agent: UpstreamIdentity = {
    ...inTenant,
    clientId: 'agent',
    credential: { kind: 'chained', assertedBy: blueprint, audience },
  };

  it('are those whose tokens its own needs, the first one first, and itself', () => {
    assert.deepEqual(legsOf({ kind: 'unnamed' }), [{ kind: 'unnamed' }]);
    assert.deepEqual(legsOf(application), [managed, application]);
    assert.deepEqual(legsOf(agent), [managed, blueprint, agent]);
  });

  it('have the words of their part, and the name of their source', () => {
    assert.deepEqual(titlesBefore(agent), ['managed identity m', 'blueprint bp in tenant t']);
    assert.equal(titleOfLeg(agent), 'agent identity agent in tenant t');
    assert.equal(titleOfLeg(application), 'application app in tenant t');
    assert.equal(titleOfLeg({ kind: 'unnamed' }), "the node's own identity");
    assert.deepEqual([agent, managed, { kind: 'unnamed' } as const].map(sourceNameOf), [
      'chained',
      'imds',
      'imds',
    ]);
  });
});
