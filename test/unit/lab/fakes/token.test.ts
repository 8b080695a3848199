import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createLabIdentity } from '../../../../lab/fakes/identity.ts';
import {
  createTokenSigner,
  decodeLabToken,
  findTokenIdentity,
} from '../../../../lab/fakes/token.ts';

const identity = createLabIdentity('web');
const grant = {
  identity,
  audience: 'https://vault.azure.net',
  tenantId: 'tenant',
  issuedAtWallMs: 1_700_000_000_900,
  lifetimeMs: 60_000,
};

it('lab tokens carry the identity, the audience and their times, and no two are the same', () => {
  const sign = createTokenSigner();
  const { uti, ...rest } = decodeLabToken(sign(grant)) ?? assert.fail();
  assert.match(uti, /^[\w-]{22}$/);
  assert.deepEqual(rest, {
    aud: 'https://vault.azure.net',
    iss: 'https://sts.windows.net/tenant/',
    iat: 1_700_000_000,
    nbf: 1_699_999_700,
    exp: 1_700_000_060,
    appid: identity.clientId,
    oid: identity.objectId,
    tid: 'tenant',
    xms_mirid: identity.resourceId,
    lab_identity: 'web',
  });
  assert.notEqual(sign(grant), sign(grant));
  assert.notEqual(sign(grant).split('.')[0], createTokenSigner()(grant).split('.')[0]);
});

it('no other text has the claims or the identity of a lab token', () => {
  const token = createTokenSigner()(grant);
  assert.equal(findTokenIdentity(JSON.stringify({ access_token: token })), 'web');
  for (const text of ['', '{"error":"access_token"}', '{"access_token":1}', '{"access_token"']) {
    assert.equal(findTokenIdentity(text), undefined, text);
  }
  for (const text of ['', 'a.b.c', 'a.e30.c', `a.${btoa('{"lab_identity":1}')}.c`, 'a.bnVsbA.c']) {
    assert.equal(decodeLabToken(text), undefined, text);
  }
});
