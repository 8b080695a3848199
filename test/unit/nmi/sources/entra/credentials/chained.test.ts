import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Identity } from '../../../../../../src/cache/index/objects.ts';
import { authoritiesOf } from '../../../../../../src/nmi/grants/authorities.ts';
import { identityKey } from '../../../../../../src/nmi/grants/cache-key.ts';
import { entryFor } from '../../../../../../src/nmi/grants/identity-owners.ts';
import { UpstreamResolver } from '../../../../../../src/nmi/grants/resolve-upstream.ts';
import { parseIdentity } from '../../../../../../src/nmi/kube/watch/parse.ts';
import {
  legsOf,
  type UpstreamIdentity,
} from '../../../../../../src/nmi/sources/upstream-identity.ts';
import { createPod } from '../../../../../support/cache-objects.ts';

const [managed, application, agent] = [1, 2, 3].map(
  (n) => `${n}0000000-1111-4111-8111-00000000000a`,
);
const tenantID = 'Other.Example';
const resourceID =
  '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';
const chain = { type: 4, clientID: managed, application: { tenantID, clientID: application } };
const pod = createPod({ namespace: 'team', name: 'web', serviceAccount: 'robot' });
const metadata = { namespace: 'team', name: 'n', uid: 'u' };

function resolver(): UpstreamResolver {
  return new UpstreamResolver(
    authoritiesOf({ cloud: 'china', entraAuthorities: [], entraAudience: 'api://of-accounts' }),
  );
}

function parsed(spec: object): Identity {
  const result = parseIdentity({ metadata, spec });
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

function upstreamOf(spec: object): UpstreamIdentity {
  const choice = resolver().of(parsed(spec), pod);
  assert.ok(choice.kind === 'upstream', JSON.stringify(choice));
  return choice.upstream;
}

function problemOf(spec: object): string {
  const result = parseIdentity({ metadata, spec });
  if (!result.ok) return result.reason;
  const choice = resolver().of(result.value, pod);
  assert.ok(choice.kind === 'unusable', JSON.stringify(choice));
  return choice.problem;
}

describe('a chain', () => {
  it('has the ids of what it ends with, and the cloud’s own audience', () => {
    const { clientId, resourceId } = parsed({ ...chain, resourceID });
    assert.deepEqual([clientId, resourceId], [application, '']);
    assert.equal(parsed({ ...chain, agentIdentity: agent }).clientId, agent);
    const [first, last, ...others] = legsOf(upstreamOf(chain));
    assert.deepEqual(others, []);
    assert.deepEqual(first, { kind: 'client_id', value: managed });
    assert.deepEqual(last, {
      kind: 'entra',
      authority: 'https://login.partner.microsoftonline.cn',
      tenantId: 'other.example',
      clientId: application,
      credential: {
        kind: 'chained',
        assertedBy: first,
        audience: 'api://AzureADTokenExchangeChina',
      },
    });
  });

  it('of an agent identity goes over its blueprint', () => {
    const byNode = { ...chain, agentIdentity: agent };
    const byPod = { ...byNode, clientID: '', federation: 'pod' };
    const of = (spec: object) =>
      legsOf(upstreamOf(spec)).map((leg) => [
        leg.kind === 'entra' ? leg.clientId : leg.kind,
        leg.kind === 'entra' ? leg.agentIdentity : '',
        leg.kind === 'entra' ? leg.credential.kind : '',
      ]);
    const rest = [agent, undefined, 'chained'];
    assert.deepEqual(of(byNode), [['client_id', '', ''], [application, agent, 'chained'], rest]);
    assert.deepEqual(of(byPod), [[application, agent, 'federated_pod'], rest]);
    const byAgent = { ...byPod, federation: 'node' };
    assert.deepEqual(of(byAgent), [[application, agent, 'federated_node'], rest]);
  });

  it('has another cache key for every difference in it, and at every leg', () => {
    const specs = [
      chain,
      { ...chain, clientID: '', resourceID },
      { ...chain, agentIdentity: agent },
      { ...chain, agentIdentity: managed },
      { ...chain, notBefore: '2026-11-30T06:00:00Z' },
      { ...chain, application: { tenantID: 'a.example', clientID: application } },
      { ...chain, clientID: '', federation: 'pod', agentIdentity: agent },
      { ...chain, clientID: '', federation: 'node', agentIdentity: agent },
      { type: 3, clientID: application, tenantID },
      { type: 0, clientID: managed },
    ];
    const keys = specs.map((spec) => identityKey(upstreamOf(spec)));
    assert.equal(new Set(keys).size, specs.length, keys.join('\n'));
    const [, blueprint] = legsOf(upstreamOf({ ...chain, agentIdentity: agent }));
    assert.ok(blueprint !== undefined);
    assert.ok(!keys.includes(identityKey(blueprint)), 'the token for an agent is not a pod’s');
  });

  it('needs a grant for what it ends with, unless a pod’s service account proves it', () => {
    const grantOf = (spec: object) => entryFor(upstreamOf(spec));
    const byPod = { ...chain, clientID: '', federation: 'pod', agentIdentity: agent };
    assert.deepEqual(grantOf(chain), { field: 'clientIDs', id: application });
    const ofAgent = { field: 'clientIDs', id: agent };
    assert.deepEqual(grantOf({ ...chain, agentIdentity: agent }), ofAgent);
    assert.deepEqual(grantOf({ ...byPod, federation: 'node' }), ofAgent);
    assert.equal(grantOf(byPod), undefined);
  });

  it('is refused where it cannot work', () => {
    const agentIdentity = agent;
    const table: readonly (readonly [object, RegExp])[] = [
      // As a definition that does not know its fields would store it.
      [{ type: 4, clientID: managed }, /spec\.application\.tenantID/],
      [{ ...chain, application: { tenantID } }, /spec\.application\.clientID that is no GUID/],
      [{ ...chain, application: { tenantID: 'common', clientID: application } }, /tenantID/],
      [{ ...chain, application: 7 }, /spec\.application is no object/],
      [{ ...chain, application: [] }, /spec\.application is no object/],
      [{ ...chain, application: { ...chain.application, application: {} } }, /alone/],
      [{ ...chain, application: { tenantID: 7 } }, /spec\.application/],
      [{ ...chain, agentIdentity: 'x' }, /spec\.agentIdentity that is no GUID/],
      [{ ...chain, agentIdentity: 7 }, /spec\.agentIdentity/],
      [{ ...chain, clientID: '' }, /neither spec\.clientID nor spec\.resourceID/],
      [{ ...chain, clientID: '', resourceID: '/x' }, /spec\.resourceID/],
      [{ ...chain, federation: 'pod' }, /AADSTS700231/],
      [{ ...chain, clientID: '', resourceID, federation: 'node', agentIdentity }, /AADSTS700231/],
      [{ ...chain, clientID: '', federation: 'pod' }, /it has type 3/],
      [{ ...chain, clientID: '', federation: 'x', agentIdentity }, /neither "pod" nor "node"/],
      [{ ...chain, clientID: '', federation: 'binding', agentIdentity }, /and a blueprint is none/],
      [{ ...chain, adEndpoint: 'https://evil.example' }, /adEndpoint/],
      // Without these fields it would be another identity.
      [{ type: 0, clientID: managed, application: {} }, /for type 4 alone/],
      [{ type: 3, clientID: managed, tenantID, agentIdentity }, /for type 4 alone/],
    ];
    for (const [spec, says] of table) assert.match(problemOf(spec), says);
  });
});
