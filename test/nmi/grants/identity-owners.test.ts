import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { entryFor } from '../../../src/nmi/grants/identity-owners.ts';
import type { EntraIdentity } from '../../../src/nmi/sources/entra/entra-identity.ts';
import type { UpstreamIdentity } from '../../../src/nmi/sources/upstream-identity.ts';
import { createIdentityGrant } from '../../support/cache-objects.ts';
import { createOwners } from '../../support/owners.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
const resourceId = '/subscriptions/s/x';

function application(credential: EntraIdentity['credential']): UpstreamIdentity {
  const authority = 'https://login.microsoftonline.com';
  return { kind: 'entra', authority, tenantId: 'contoso.example', clientId, credential };
}

const byAgent = application({ kind: 'federated_node', audience: 'api://x' });

describe('the grant that an identity needs', () => {
  it('is for the id that upstream is asked for', () => {
    const ofClient = { field: 'clientIDs', id: clientId };
    assert.deepEqual(entryFor({ kind: 'client_id', value: clientId }), ofClient);
    assert.deepEqual(entryFor({ kind: 'resource_id', value: resourceId }), {
      field: 'resourceIDs',
      id: resourceId,
    });
    assert.deepEqual(entryFor(byAgent), ofClient);
    const ofNode = { field: 'nodeIdentities' };
    assert.deepEqual(entryFor({ kind: 'unnamed' }), ofNode);
    assert.deepEqual(entryFor({ kind: 'object_id', value: clientId }), ofNode);
  });

  it('is none if a Secret or the service account of the pod is the credential', () => {
    const serviceAccount = { namespace: 'shop', name: 'robot' };
    const secret = { namespace: 'shop', name: 'secret' };
    assert.equal(
      entryFor(application({ kind: 'federated_pod', serviceAccount, audience: 'a' })),
      undefined,
    );
    assert.equal(entryFor(application({ kind: 'secret', secret })), undefined);
    assert.equal(entryFor(application({ kind: 'certificate', secret })), undefined);
  });
});

describe('missing grants of a namespace', () => {
  it('are those that no grant covers, in any mode', () => {
    for (const mode of ['warn', 'enforce'] as const) {
      const { owners } = createOwners(mode, { namespaces: ['shop'], clientIds: [clientId] });
      const upstream = { kind: 'client_id', value: clientId } as const;
      assert.equal(owners.mode, mode);
      assert.equal(owners.lacking('shop', upstream), undefined);
      assert.equal(owners.lacking('shop', byAgent), undefined);
      assert.deepEqual(owners.lacking('pay', upstream), { field: 'clientIDs', id: clientId });
      assert.deepEqual(owners.lacking('shop', { kind: 'resource_id', value: resourceId }), {
        field: 'resourceIDs',
        id: resourceId,
      });
      assert.deepEqual(owners.lacking('shop'), { field: 'nodeIdentities' });
    }
  });

  it('end with a grant, and return without it', () => {
    const { index, owners } = createOwners('enforce');
    let changes = 0;
    const off = owners.onChange(() => changes++);
    const before = owners.generation;
    assert.ok(owners.lacking('ops') !== undefined && !owners.hasGrants);
    const grant = { namespace: '', name: 'ops', uid: 'u' };
    index.grants.upsert({
      ...grant,
      resourceVersion: '1',
      namespaces: ['ops'],
      clientIds: [],
      resourceIds: [],
      nodeIdentities: true,
    });
    assert.ok(owners.lacking('ops') === undefined && owners.hasGrants);
    index.grants.remove(grant);
    assert.ok(owners.lacking('ops') !== undefined);
    assert.deepEqual([changes, owners.generation - before], [2, 2]);
    off();
  });

  it('include the grant behind a decision, when grants are enforced', () => {
    const upstream = { kind: 'client_id', value: '22729e47-74ce-4b43-8eea-aab5f2073309' } as const;
    for (const mode of ['off', 'warn', 'enforce'] as const) {
      const { index, owners } = createOwners(mode);
      assert.equal(owners.deciding('ops', upstream), undefined);
      const clientIds = [upstream.value];
      index.grants.upsert(
        createIdentityGrant({ name: 'g', namespaces: ['ops'], clientIds, nodeIdentities: true }),
      );
      const expected = mode === 'enforce' ? 'g' : undefined;
      assert.equal(owners.deciding('ops', upstream)?.name, expected);
      assert.equal(owners.deciding('ops')?.name, expected);
      assert.equal(owners.deciding('other', upstream), undefined);
    }
  });
});
