import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  askedIdOf,
  parseTokenQuery,
  wantsOtherToken,
} from '../../../src/nmi/server/token-query.ts';

const base = 'api-version=2018-02-01';

function reasonOf(query: string): string {
  const result = parseTokenQuery(query);
  return result.kind === 'ok' ? 'ok' : result.reason;
}

describe('the query of a token request', () => {
  it('contains whether a new token is requested', () => {
    for (const [text, wanted] of [
      ['bypass_cache=true', true],
      ['bypass_cache=True', true],
      ['bypass_cache=1', false],
      ['bypass_cache=', false],
    ] as const) {
      const result = parseTokenQuery(`api-version=2018-02-01&resource=r&${text}`);
      assert.ok(result.kind === 'ok');
      assert.equal(result.query.bypassCache, wanted, text);
    }
  });

  it('contains the SHA-256 in hex of the token to replace, and ignores an invalid one', () => {
    const hash = 'cc0af97287543b65da2c7e1476426021826cab166f1e063ed012b855ff819656';
    for (const [text, wanted] of [
      [hash, hash],
      [hash.toUpperCase(), hash],
      [hash.slice(1), undefined],
      [`${hash}0`, undefined],
      [`g${hash.slice(1)}`, undefined],
      ['', undefined],
    ] as const) {
      const result = parseTokenQuery(`${base}&resource=r&token_sha256_to_refresh=${text}`);
      assert.ok(result.kind === 'ok');
      assert.equal(result.query.badTokenSha256, wanted, text);
      assert.equal(wantsOtherToken(result.query), wanted !== undefined, text);
    }
  });

  it('keeps the resource byte for byte, raw or encoded', () => {
    for (const resource of [
      'https://vault.azure.net',
      'https://management.azure.com/',
      'https://x//.default',
      'api://ABC-def/?q=1&r=2',
      '00000003-0000-0000-c000-000000000000',
    ]) {
      const encoded = parseTokenQuery(`resource=${encodeURIComponent(resource)}&${base}`);
      assert.deepEqual(encoded, {
        kind: 'ok',
        query: {
          resource,
          selector: { kind: 'none' },
          bypassCache: false,
          badTokenSha256: undefined,
        },
      });
    }
    for (const text of ['a+b', 'a%20b', 'a b']) {
      const spaced = parseTokenQuery(`${base}&resource=${text}`);
      assert.ok(spaced.kind === 'ok' && spaced.query.resource === 'a b', text);
    }
    const raw = parseTokenQuery(`${base}&resource=https://vault.azure.net`);
    assert.ok(raw.kind === 'ok' && raw.query.resource === 'https://vault.azure.net');
  });

  const selectors = [
    ['client_id=A', { kind: 'client_id', value: 'A' }],
    ['object_id=B', { kind: 'object_id', value: 'B' }],
    ['msi_res_id=/subscriptions/s', { kind: 'resource_id', value: '/subscriptions/s' }],
    ['mi_res_id=%2Fsubscriptions%2Fs', { kind: 'resource_id', value: '/subscriptions/s' }],
    ['client_id=&msi_res_id=/s', { kind: 'resource_id', value: '/s' }],
    ['client_id=', { kind: 'none' }],
    ['xms_cc=CP1&foo=1&bypass_cache=false', { kind: 'none' }],
  ] as const;
  for (const [text, selector] of selectors) {
    it(`takes ${text}`, () => {
      const result = parseTokenQuery(`${text}&resource=r&${base}`);
      assert.deepEqual(result, {
        kind: 'ok',
        query: { resource: 'r', selector, bypassCache: false, badTokenSha256: undefined },
      });
    });
  }

  it('has the id that the answer repeats, unless it is a client id', () => {
    for (const [text, asked] of [
      ['', undefined],
      ['&client_id=A', undefined],
      ['&object_id=B', { kind: 'object_id', value: 'B' }],
      ['&msi_res_id=/s', { kind: 'resource_id', value: '/s' }],
    ] as const) {
      const result = parseTokenQuery(`${base}&resource=r${text}`);
      assert.ok(result.kind === 'ok');
      assert.deepEqual(askedIdOf(result.query), asked, text);
    }
  });

  const refused = [
    ['', 'parameter_missing'],
    ['resource=r', 'parameter_missing'],
    [base, 'parameter_missing'],
    [`${base}&resource=`, 'parameter_missing'],
    ['api-version=&resource=r', 'parameter_missing'],
    ['api-version=latest&resource=r', 'parameter_invalid'],
    [`${base}&resource=a%00b`, 'parameter_invalid'],
    [`${base}&resource=%01a`, 'parameter_invalid'],
    [`${base}&resource=a%C2%9b`, 'parameter_invalid'],
    [`${base}&resource=a%1fb`, 'parameter_invalid'],
    [`${base}&resource=a%7fb`, 'parameter_invalid'],
    [`${base}&resource=a%zz`, 'parameter_invalid'],
    [`${base}&resource=r&=%zz`, 'parameter_invalid'],
    [`${base}&resource=r&resource=r`, 'parameter_duplicate'],
    [`${base}&resource=r&foo=1&foo=2`, 'parameter_duplicate'],
    [`${base}&resource=r&resourc%65=s`, 'parameter_duplicate'],
    [`${base}&resource=r&=1&=2`, 'parameter_duplicate'],
    [`${base}&resource=r&client_id=a&msi_res_id=b`, 'selector_conflict'],
    [`${base}&resource=r&msi_res_id=a&mi_res_id=b`, 'selector_conflict'],
    [`${base}&resource=r&clientid=a`, 'parameter_invalid'],
    [`${base}&resource=r&Client_Id=a`, 'parameter_invalid'],
    [`${base}&resource=r&msi-res-id=a`, 'parameter_invalid'],
  ] as const;
  for (const [query, reason] of refused) {
    it(`refuses ${JSON.stringify(query.slice(0, 70))} as ${reason}`, () => {
      assert.equal(reasonOf(query), reason);
    });
  }

  it('has a resource of up to 2,048 characters', () => {
    assert.equal(reasonOf(`${base}&resource=${'x'.repeat(2_048)}`), 'ok');
    assert.equal(reasonOf(`${base}&resource=${'x'.repeat(2_049)}`), 'parameter_invalid');
  });

  it('has the intended name for a misspelled selector', () => {
    const result = parseTokenQuery(`${base}&resource=r&clientid=a`);
    assert.ok(result.kind === 'refused' && result.detail.includes("'client_id'"));
  });

  it('ignores empty parts', () => {
    for (const query of [`&&${base}&&resource=r&&`, `&${base}&resource=r`]) {
      assert.equal(reasonOf(query), 'ok', query);
    }
  });

  it('has a selector of up to 1,024 characters', () => {
    const selected = `${base}&resource=r&client_id=`;
    assert.equal(reasonOf(`${selected}${'x'.repeat(1_024)}`), 'ok');
    assert.equal(reasonOf(`${selected}${'x'.repeat(1_025)}`), 'parameter_invalid');
    assert.equal(reasonOf(`${selected}a%01`), 'parameter_invalid');
  });

  it('needs no api-version on the host route', () => {
    assert.equal(parseTokenQuery('resource=r', false).kind, 'ok');
  });

  it('never throws and contains nothing unprintable, for any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (query) => {
        const result = parseTokenQuery(query);
        if (result.kind === 'refused') assert.match(result.detail, /^[\x20-\x7e]*$/);
      }),
    );
  });

  it('does not depend on the order of parameters', () => {
    const parts = ['resource=r', base, 'client_id=c', 'foo=1'];
    fc.assert(
      fc.property(fc.shuffledSubarray(parts, { minLength: parts.length }), (shuffled) => {
        assert.deepEqual(parseTokenQuery(shuffled.join('&')), parseTokenQuery(parts.join('&')));
      }),
    );
  });
});
