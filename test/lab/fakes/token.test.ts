import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import { createTokenSigner, decodeLabToken, findTokenIdentity } from '../../../lab/fakes/token.ts';

const grant = {
  identity: createLabIdentity('web'),
  audience: 'https://vault.azure.net',
  tenantId: 'tenant',
  issuedAtWallMs: 1_700_000_000_900,
  lifetimeMs: 60_000,
};

describe('lab tokens', () => {
  test('carry the identity, the audience and their times', () => {
    const claims = decodeLabToken(createTokenSigner()(grant));
    assert.ok(claims !== undefined);
    const { uti, ...rest } = claims;
    assert.match(uti, /^[\w-]{22}$/);
    assert.deepEqual(rest, {
      aud: 'https://vault.azure.net',
      iss: 'https://sts.windows.net/tenant/',
      iat: 1_700_000_000,
      nbf: 1_699_999_700,
      exp: 1_700_000_060,
      appid: grant.identity.clientId,
      oid: grant.identity.objectId,
      tid: 'tenant',
      xms_mirid: grant.identity.resourceId,
      lab_identity: 'web',
    });
  });

  test('two for the same grant differ, and so do two signers', () => {
    const sign = createTokenSigner();
    assert.notEqual(sign(grant), sign(grant));
    assert.notEqual(sign(grant).split('.')[0], createTokenSigner()(grant).split('.')[0]);
  });

  test('no other text has claims', () => {
    for (const text of [
      '',
      'a.b.c',
      'a.e30.c',
      `a.${btoa('{"lab_identity":1}')}.c`,
      'a.bnVsbA.c',
    ]) {
      assert.equal(decodeLabToken(text), undefined, text);
    }
  });

  test('an answer names the identity of its token', () => {
    const body = JSON.stringify({ access_token: createTokenSigner()(grant) });
    assert.equal(findTokenIdentity(body), 'web');
    for (const other of ['', '{"error":"access_token"}', '{"access_token":1}', '{"access_token"']) {
      assert.equal(findTokenIdentity(other), undefined, other);
    }
  });

  test('an identity has stable ids in the forms of real ones', () => {
    const identity = createLabIdentity('web');
    assert.deepEqual(identity, createLabIdentity('web'));
    const guid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/;
    assert.match(identity.clientId, guid);
    assert.match(identity.objectId, guid);
    assert.notEqual(identity.clientId, identity.objectId);
    assert.match(
      identity.resourceId,
      /\/resourcegroups\/[^/]+\/providers\/Microsoft.ManagedIdentity\/userAssignedIdentities\/web$/,
    );
  });
});
