import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { claimsOf, isHeaderSafe, seconds } from '../../../src/nmi/sources/token-fields.ts';

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
    const payload = Buffer.from('{"oid":"x"}').toString('base64url');
    assert.deepEqual(claimsOf(`head.${payload}.signature`), { oid: 'x' });
    for (const token of ['opaque', '', 'a.b', 'a.W10.c']) assert.equal(claimsOf(token), undefined);
  });
});
