import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { parseImdsTarget } from '../../../../lab/fakes/imds/target.ts';

const tokenPath = '/metadata/identity/oauth2/token';

describe('the target as a tolerant back end reads it', () => {
  for (const target of [
    tokenPath,
    `${tokenPath}/`,
    `//metadata/identity/oauth2/token`,
    '/METADATA/identity/oauth2/token',
    '/metadata/identity\\oauth2\\token',
    '\\metadata\\identity\\oauth2\\token',
    '/metadata/identity%5coauth2%5Ctoken',
    '/metadata/identity%255coauth2%252ftoken',
    '/metadata/%69dentity/./oauth2/x/../token',
    '/metadata/instance/..%2fidentity/oauth2/token',
    'http://169.254.169.254/metadata/identity/oauth2/token',
    'HTTP://169.254.169.254:80/metadata/identity/oauth2/token#part',
  ]) {
    test(`${target} is the token path`, () => {
      assert.equal(parseImdsTarget(`${target}?resource=x`).path, tokenPath);
    });
  }

  for (const target of [
    '/metadata/Identity/oauth2/token',
    '/metadata/identity/oauth2/tokens',
    '/',
  ]) {
    test(`${target} is not the token path`, () => {
      assert.notEqual(parseImdsTarget(target).path, tokenPath);
    });
  }

  test('the query keeps order and duplicates, and is decoded once', () => {
    const { query } = parseImdsTarget('/x?resource=https%3A%2F%2Fa%252Fb&a&A=1+2&a=https://x/?y');
    assert.deepEqual(query, [
      ['resource', 'https://a%2Fb'],
      ['a', ''],
      ['A', '1 2'],
      ['a', 'https://x/?y'],
    ]);
  });

  test('any text can be normalized, and a second time changes nothing', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii' }), (text) => {
        const { path } = parseImdsTarget(text);
        assert.ok(path.startsWith('/') && (path === '/' || !path.endsWith('/')), path);
        assert.ok(!path.includes('\\') && !path.includes('//'), path);
      }),
    );
  });
});
