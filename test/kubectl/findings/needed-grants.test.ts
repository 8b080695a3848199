import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Identity } from '../../../src/cache/index/objects.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
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
const none: ClusterObjects = {
  identities: [],
  bindings: [],
  exceptions: [],
  grants: [],
  pods: [],
  workloads: [],
  accounts: [],
  nodes: [],
};
const labeled = (namespace: string, label: string): RawObject => ({
  metadata: { namespace, labels: { aadpodidbinding: label } },
});

function bound(...identities: readonly Partial<Identity>[]): ClusterObjects {
  const made = identities.map(createIdentity);
  const bindings = made.map(({ namespace, name }) =>
    createBinding({ namespace, name, identityName: name, selector: name }),
  );
  const pods = made.map(({ namespace, name }) => labeled(namespace, name));
  return { ...none, identities: made, bindings, pods };
}

function lines(objects: ClusterObjects): readonly string[] {
  return neededGrants(objects).grants.map(({ name, namespace, ...grant }) => {
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
    assert.deepEqual(neededGrants(objects).grants[1]?.clientIDs[1]?.usedBy, ['a', 'b']);
  });

  it('leave out identities that cannot be used', () => {
    assert.deepEqual(lines(bound({ type: 7, clientId: idOf(1) })), []);
  });

  it('leave out unbound identities', () => {
    const objects = bound({ name: 'a', clientId: idOf(1) });
    assert.deepEqual(lines({ ...objects, bindings: [] }), []);
    for (const binding of [{ selector: '' }, { namespace: 'other' }, { identityName: 'b' }]) {
      const bindings = [createBinding({ identityName: 'a', ...binding })];
      assert.deepEqual(lines({ ...objects, bindings }), []);
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
    const chain = { clientId: idOf(1), resourceId: '', applicationId: idOf(4), agentIdentity: '' };
    const chained = { ...ofType('chain', 4, ''), entra: { ...entra, federation: '', chain } };
    assert.deepEqual(lines(bound(chained)), [`default default ${idOf(4)}`]);
  });

  it('include exceptions that match pods', () => {
    const exceptions = [
      createException({ namespace: 'kube-system', podLabels: { a: 'b' } }),
      createException({ namespace: 'empty' }),
    ];
    assert.deepEqual(lines({ ...none, exceptions }), ['kube-system kube-system node']);
  });

  it('leave out what is granted', () => {
    const objects = bound(
      { namespace: 'shop', name: 'till', clientId: idOf(1) },
      { namespace: 'thief', name: 'loot', clientId: idOf(1) },
    );
    const grants = [createIdentityGrant({ name: 'x', namespaces: ['shop'], clientIds: [idOf(1)] })];
    assert.deepEqual(lines({ ...objects, grants }), [`thief thief ${idOf(1)}`]);
    const all = [createIdentityGrant({ namespaces: ['*'], clientIds: [idOf(1)] })];
    assert.deepEqual(lines({ ...objects, grants: all }), []);
  });

  describe('leave to a person', () => {
    const doubtsOf = (objects: ClusterObjects): Readonly<Record<string, readonly string[]>> =>
      Object.fromEntries(
        neededGrants(objects).grants.flatMap(({ namespace, clientIDs, resourceIDs }) =>
          [...clientIDs, ...resourceIDs].map(({ usedBy, doubts }) => [
            `${namespace}/${usedBy.join('+')}`,
            doubts,
          ]),
        ),
      );
    const till = { namespace: 'shop', name: 'till', clientId: idOf(1), createdAtWallMs: 1 };
    const loot = { namespace: 'thief', name: 'loot', clientId: idOf(1), createdAtWallMs: 2 };
    const other = { namespace: 'thief', name: 'other', clientId: idOf(2) };
    const odd = ['the namespace names an identity of others'];

    it('nothing of a namespace that names and uses its own', () => {
      assert.deepEqual(doubtsOf(bound(till, { ...other, namespace: 'shop' })), {
        'shop/till': [],
        'shop/other': [],
      });
    });

    it('what several namespaces name, bound or not, and all of one that named it later', () => {
      const objects = bound(till, loot, other);
      const both = {
        'shop/till': ['named in namespace thief too'],
        'thief/loot': ['named in namespace shop too'],
      };
      assert.deepEqual(doubtsOf(objects), { ...both, 'thief/other': odd });
      const bindings = objects.bindings.filter(({ namespace }) => namespace === 'thief');
      const { 'thief/loot': loots } = doubtsOf({ ...objects, bindings });
      assert.deepEqual(loots, both['thief/loot']);
      // A thief cannot make the objects of others doubtful beside the id that it names.
      const shop = { ...other, namespace: 'shop' };
      assert.deepEqual(doubtsOf(bound(till, loot, shop))['shop/other'], []);
    });

    it('what Workload Identity uses elsewhere', () => {
      const annotations = { 'azure.workload.identity/client-id': idOf(2).toUpperCase() };
      const accounts = [{ metadata: { namespace: 'shop', annotations } }];
      assert.deepEqual(doubtsOf({ ...bound(other), accounts }), {
        'thief/other': ['named in namespace shop too'],
      });
    });

    it('what a grant gives to other namespaces, and all of the namespace that names it', () => {
      const grants = [
        createIdentityGrant({ name: 'x', namespaces: ['pay'], clientIds: [idOf(1)] }),
      ];
      assert.deepEqual(doubtsOf({ ...bound(loot, other), grants }), {
        'thief/loot': ['AzureIdentityGrant x gives it to others'],
        'thief/other': odd,
      });
    });

    it('the identity of the kubelet, and those of the resource group of the nodes', () => {
      const node = {
        metadata: {
          labels: { 'kubernetes.azure.com/kubelet-identity-client-id': idOf(1).toUpperCase() },
        },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/mc_g/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      };
      const objects = bound(loot, {
        ...other,
        clientId: '',
        resourceId:
          '/subscriptions/S/resourceGroups/MC_g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/agentpool',
      });
      assert.deepEqual(doubtsOf({ ...objects, nodes: [node] }), {
        'thief/loot': ['the identity of the kubelet'],
        'thief/other': ['in the resource group of the nodes, as those of kubelet and add-ons'],
      });
      assert.equal(neededGrants({ ...objects, nodes: [node] }).knowsKubelet, true);
      assert.equal(neededGrants(objects).knowsKubelet, false);
    });

    it('what no pod and no pod template of the namespace uses', () => {
      const objects = { ...bound(till), pods: [labeled('other', 'till')] };
      assert.deepEqual(doubtsOf(objects), { 'shop/till': ['no pod of the namespace uses it'] });
      const template = labeled('', 'till');
      const cronJob = {
        kind: 'CronJob',
        metadata: { namespace: 'shop' },
        spec: { jobTemplate: { spec: { template } } },
      };
      assert.deepEqual(doubtsOf({ ...objects, workloads: [cronJob] }), { 'shop/till': [] });
    });
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
    const grants = neededGrants(objects).grants.map(({ name, namespace, ...grant }) =>
      createIdentityGrant({
        name,
        namespaces: [namespace],
        nodeIdentities: grant.nodeIdentities,
        clientIds: grant.clientIDs.map(({ id }) => id),
        resourceIds: grant.resourceIDs.map(({ id }) => id),
      }),
    );
    assert.deepEqual(neededGrants({ ...objects, grants }).grants, []);
    const { owners } = createOwners('enforce', ...grants);
    assert.equal(owners.lacking('default'), undefined);
  });
});
