import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  legsOf,
  sourceNameOf,
  titleOfLeg,
  titlesBefore,
  type UpstreamIdentity,
} from '../../../src/nmi/sources/upstream-identity.ts';

describe('the source of an identity', () => {
  it('is the metadata service, or the kind of the credential', () => {
    const entra = { kind: 'entra', credential: { kind: 'secret' } } as unknown as UpstreamIdentity;
    assert.equal(sourceNameOf(entra), 'secret');
    assert.equal(sourceNameOf({ kind: 'unnamed' }), 'imds');
    assert.equal(sourceNameOf({ kind: 'client_id', value: 'x' }), 'imds');
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

  it('have the words of their part', () => {
    assert.deepEqual(titlesBefore(agent), ['managed identity m', 'blueprint bp in tenant t']);
    assert.equal(titleOfLeg(agent), 'agent identity agent in tenant t');
    assert.equal(titleOfLeg(application), 'application app in tenant t');
    assert.equal(titleOfLeg({ kind: 'unnamed' }), "the node's own identity");
  });
});
