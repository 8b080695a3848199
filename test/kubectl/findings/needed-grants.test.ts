import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Identity } from '../../../src/cache/index/objects.ts';
import { neededGrants, type ClusterObjects } from '../../../src/kubectl/findings/needed-grants.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
} from '../../support/cache-objects.ts';
import { createOwners } from '../../support/owners.ts';

const idOf = (number: number): string =>
  `22729e47-74ce-4b43-8eea-${String(number).padStart(12, '0')}`;
const none: ClusterObjects = { identities: [], bindings: [], exceptions: [], grants: [] };

function bound(...identities: readonly Partial<Identity>[]): ClusterObjects {
  const made = identities.map(createIdentity);
  const bindings = made.map(({ namespace, name }) =>
    createBinding({ namespace, name, identityName: name }),
  );
  return { ...none, identities: made, bindings };
}

function lines(objects: ClusterObjects): readonly string[] {
  return neededGrants(objects).map(({ name, namespace, ...grant }) => {
    const ids = [...grant.clientIDs, ...grant.resourceIDs].map(({ id }) => id);
    return [name, namespace, ...ids, ...(grant.nodeIdentities ? ['node'] : [])].join(' ');
  });
}

describe('the grants that a cluster needs', () => {
  it('are those behind the bindings, by namespace, with normalized ids', () => {
    const resourceId =
      '/Subscriptions/S/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x';
    const objects = bound(
      { namespace: 'shop', name: 'b', clientId: idOf(2) },
      { namespace: 'shop', name: 'a', clientId: idOf(2).toUpperCase() },
      { namespace: 'pay', name: 'c', clientId: '', resourceId },
      { namespace: 'shop', name: 'd', clientId: idOf(1), resourceId },
      { namespace: 'shop', name: 'unusable', clientId: 'x' },
    );
    assert.deepEqual(lines(objects), [
      'pay pay /subscriptions/s/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/x',
      `shop shop ${idOf(1)} ${idOf(2)}`,
    ]);
    assert.deepEqual(neededGrants(objects)[1]?.clientIDs[1]?.usedBy, ['a', 'b']);
  });

  it('leave out unbound identities', () => {
    const objects = bound({ name: 'a', clientId: idOf(1) });
    assert.deepEqual(neededGrants({ ...objects, bindings: [] }), []);
    for (const binding of [{ selector: '' }, { namespace: 'other' }, { identityName: 'b' }]) {
      const bindings = [createBinding({ identityName: 'a', ...binding })];
      assert.deepEqual(neededGrants({ ...objects, bindings }), []);
    }
  });

  it('include the applications of the agent’s own service account, and no others', () => {
    const entra = {
      tenantId: 'contoso.example',
      auxiliaryTenantIds: [],
      adEndpoint: 'https://x.example',
      secretNamespace: '',
      secretName: 'secret',
    };
    const ofType = (name: string, type: number, federation: string) => ({
      name,
      type,
      clientId: idOf(type),
      entra: { ...entra, federation },
    });
    assert.deepEqual(lines(bound(ofType('node', 3, 'node'))), [`default default ${idOf(3)}`]);
    assert.deepEqual(lines(bound(ofType('pod', 3, 'pod'), ofType('secret', 1, ''))), []);
  });

  it('include exceptions that match pods', () => {
    const exceptions = [
      createException({ namespace: 'kube-system', podLabels: { a: 'b' } }),
      createException({ namespace: 'empty' }),
    ];
    assert.deepEqual(lines({ ...none, exceptions }), ['kube-system kube-system node']);
  });

  it('leave out what is granted, and list other objects that name an identity', () => {
    const objects = bound(
      { namespace: 'shop', name: 'till', clientId: idOf(1) },
      { namespace: 'thief', name: 'loot', clientId: idOf(1) },
    );
    const grants = [createIdentityGrant({ name: 'x', namespaces: ['shop'], clientIds: [idOf(1)] })];
    const [grant, ...others] = neededGrants({ ...objects, grants });
    assert.deepEqual(others, []);
    assert.deepEqual(grant?.clientIDs, [{ id: idOf(1), usedBy: ['loot'], alsoIn: ['shop'] }]);
    const all = [createIdentityGrant({ namespaces: ['*'], clientIds: [idOf(1)] })];
    assert.deepEqual(lines({ ...objects, grants: all }), []);
  });

  it('replace no grant that exists', () => {
    const objects = bound({ namespace: 'shop', name: 'till', clientId: idOf(2) });
    const grants = ['shop', 'shop.2'].map((name) =>
      createIdentityGrant({ name, namespaces: ['pay'] }),
    );
    assert.deepEqual(lines({ ...objects, grants: grants.slice(0, 1) }), [`shop.2 shop ${idOf(2)}`]);
    assert.deepEqual(lines({ ...objects, grants }), [`shop.3 shop ${idOf(2)}`]);
  });

  it('leave nothing missing once they are applied', () => {
    const exceptions = [createException({ podLabels: { a: 'b' } })];
    const objects = {
      ...bound({ clientId: idOf(1) }, { name: 'x', clientId: idOf(2) }),
      exceptions,
    };
    const grants = neededGrants(objects).map(({ name, namespace, ...grant }) =>
      createIdentityGrant({
        name,
        namespaces: [namespace],
        nodeIdentities: grant.nodeIdentities,
        clientIds: grant.clientIDs.map(({ id }) => id),
        resourceIds: grant.resourceIDs.map(({ id }) => id),
      }),
    );
    assert.deepEqual(neededGrants({ ...objects, grants }), []);
    const { owners } = createOwners('enforce', ...grants);
    assert.equal(owners.lackingForException('default'), undefined);
  });
});
