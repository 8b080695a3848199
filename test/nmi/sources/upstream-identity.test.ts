import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sourceNameOf, type UpstreamIdentity } from '../../../src/nmi/sources/upstream-identity.ts';

describe('the source of an identity', () => {
  it('is the metadata service, or the kind of the credential', () => {
    const entra = { kind: 'entra', credential: { kind: 'secret' } } as unknown as UpstreamIdentity;
    assert.equal(sourceNameOf(entra), 'secret');
    assert.equal(sourceNameOf({ kind: 'unnamed' }), 'imds');
    assert.equal(sourceNameOf({ kind: 'client_id', value: 'x' }), 'imds');
  });
});
