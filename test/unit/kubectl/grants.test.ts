import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { normaliseResourceId } from '../../../src/cache/index/identifiers.ts';
import type { Identity } from '../../../src/cache/index/objects.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { createDoubts } from '../../../src/kubectl/findings/grant-doubts.ts';
import { renderGrants } from '../../../src/kubectl/findings/grants-yaml.ts';
import {
  neededGrants,
  type ClusterObjects,
  type NeededGrant,
} from '../../../src/kubectl/findings/needed-grants.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
} from '../../support/cache-objects.ts';
import { createOwners } from '../../support/owners.ts';

const idOf = (number: number) => `22729e47-74ce-4b43-8eea-${String(number).padStart(12, '0')}`;
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
const accountOf = (namespace: string, id: string): RawObject => ({
  metadata: { namespace, annotations: { 'azure.workload.identity/client-id': id } },
});
const group = '/subscriptions/s/resourceGroups/MC_g';
const machine = 'providers/Microsoft.Compute/virtualMachineScaleSets/p/virtualMachines/0';
const managed = 'providers/Microsoft.ManagedIdentity/userAssignedIdentities';
/** Of AKS. */
const node = {
  metadata: {
    labels: { 'kubernetes.azure.com/kubelet-identity-client-id': idOf(1).toUpperCase() },
  },
  spec: { providerID: `azure://${group}/${machine}` },
};

/** Each bound, and used by a pod. */
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
  const till = { namespace: 'shop', name: 'till', clientId: idOf(1), createdAtWallMs: 1 };
  const loot = { namespace: 'thief', name: 'loot', clientId: idOf(1), createdAtWallMs: 2 };
  const other = { namespace: 'thief', name: 'other', clientId: idOf(2) };
  const grantTo = (...namespaces: readonly string[]) =>
    createIdentityGrant({ name: 'x', namespaces, clientIds: [idOf(1)] });

  it('are those behind the bindings, by namespace, with normalized ids', () => {
    const resourceId = `/Subscriptions/S/resourceGroups/g/${managed}/x`;
    const objects = bound(
      { namespace: 'shop', name: 'b', clientId: idOf(2) },
      { namespace: 'shop', name: 'a', clientId: idOf(2).toUpperCase() },
      { namespace: 'pay', name: 'c', clientId: '', resourceId },
      { namespace: 'shop', name: 'd', clientId: idOf(1), resourceId },
      { namespace: 'shop', name: 'unusable', clientId: 'x' },
    );
    assert.deepEqual(lines(objects), [
      `pay pay ${resourceId.toLowerCase()}`,
      `shop shop ${idOf(1)} ${idOf(2)}`,
    ]);
    assert.deepEqual(neededGrants(objects).grants[1]?.clientIDs[1]?.usedBy, ['a', 'b']);
  });

  it('are of identities that the agent itself gets, bound and without a grant', () => {
    const entra = {
      tenantId: 'contoso.example',
      auxiliaryTenantIds: [],
      adEndpoint: 'https://x.example',
      secretNamespace: '',
      secretName: 'secret',
    };
    const ofType = (type: number, federation: string) =>
      bound({ name: 'a', type, clientId: idOf(type), entra: { ...entra, federation } });
    const chain = { clientId: idOf(1), resourceId: '', applicationId: idOf(4), agentIdentity: '' };
    const chained = { ...entra, federation: '', chain };
    const one = bound({ name: 'a', clientId: idOf(1) });
    const boundBy = (binding: object) => [createBinding({ identityName: 'a', ...binding })];
    const exceptions = [
      createException({ namespace: 'kube-system', podLabels: { a: 'b' } }),
      createException({ namespace: 'empty' }),
    ];
    for (const [objects, expected] of [
      [bound({ type: 7, clientId: idOf(1) }), []],
      [{ ...one, bindings: [] }, []],
      [{ ...one, bindings: boundBy({ selector: '' }) }, []],
      [{ ...one, bindings: boundBy({ namespace: 'other' }) }, []],
      [{ ...one, bindings: boundBy({ identityName: 'b' }) }, []],
      [ofType(3, 'node'), [`default default ${idOf(3)}`]],
      [ofType(3, 'pod'), []],
      [ofType(1, ''), []],
      [
        bound({ name: 'chain', type: 4, clientId: idOf(4), entra: chained }),
        [`default default ${idOf(4)}`],
      ],
      [{ ...none, exceptions }, ['kube-system kube-system node']],
      [{ ...bound(till, loot), grants: [grantTo('shop')] }, [`thief thief ${idOf(1)}`]],
      [{ ...bound(till, loot), grants: [grantTo('*')] }, []],
    ] as const) {
      assert.deepEqual(lines(objects), expected);
    }
  });

  it('leave to a person what may be of others', () => {
    const odd = ['the namespace names an identity of others'];
    const [inShop, inThief] = [['named in namespace shop too'], ['named in namespace thief too']];
    const both = bound(till, loot, other);
    const unused = ['no pod of the namespace uses it'];
    const elsewhere = { ...bound(till), pods: [labeled('other', 'till')] };
    const template = labeled('', 'till');
    const spec = { jobTemplate: { spec: { template } } };
    const cronJob = { kind: 'CronJob', metadata: { namespace: 'shop' }, spec };
    const ofNodes = { ...other, clientId: '', resourceId: `${group}/${managed}/agentpool` };
    for (const [objects, expected] of [
      [bound(till, { ...other, namespace: 'shop' }), { 'shop/till': [], 'shop/other': [] }],
      [both, { 'shop/till': inThief, 'thief/loot': inShop, 'thief/other': odd }],
      // Bound or not.
      [
        { ...both, bindings: both.bindings.filter(({ namespace }) => namespace === 'thief') },
        { 'thief/loot': inShop, 'thief/other': odd },
      ],
      // A thief cannot make the objects of others doubtful beside the id that it names.
      [
        bound(till, loot, { ...other, namespace: 'shop' }),
        { 'shop/till': inThief, 'shop/other': [], 'thief/loot': inShop },
      ],
      [
        { ...bound(other), accounts: [accountOf('shop', idOf(2).toUpperCase())] },
        { 'thief/other': inShop },
      ],
      [
        { ...bound(loot, other), grants: [grantTo('pay')] },
        { 'thief/loot': ['AzureIdentityGrant x gives it to others'], 'thief/other': odd },
      ],
      [
        { ...bound(loot, ofNodes), nodes: [node, {}] },
        {
          'thief/loot': ['the identity of the kubelet'],
          'thief/other': ['in the resource group of the nodes, as those of kubelet and add-ons'],
        },
      ],
      [elsewhere, { 'shop/till': unused }],
      [{ ...elsewhere, workloads: [cronJob] }, { 'shop/till': [] }],
    ] as const) {
      const needed = neededGrants(objects);
      assert.equal(needed.knowsKubelet, objects.nodes.length > 0);
      const doubts = needed.grants.flatMap(({ namespace, clientIDs, resourceIDs }) =>
        [...clientIDs, ...resourceIDs].map((id) => [
          `${namespace}/${id.usedBy.join('+')}`,
          id.doubts,
        ]),
      );
      assert.deepEqual(Object.fromEntries(doubts), expected);
    }
  });

  it('replace no grant that exists, and leave nothing missing once they are applied', () => {
    const shop = bound({ namespace: 'shop', name: 'till', clientId: idOf(2) });
    const taken = (...names: readonly string[]) =>
      names.map((name) => createIdentityGrant({ name, namespaces: ['pay'] }));
    assert.deepEqual(lines({ ...shop, grants: taken('shop') }), [`shop.2 shop ${idOf(2)}`]);
    assert.deepEqual(lines({ ...shop, grants: taken('shop', 'shop.2') }), [
      `shop.3 shop ${idOf(2)}`,
    ]);
    const exceptions = [createException({ podLabels: { a: 'b' } })];
    const all = { ...bound({ clientId: idOf(1) }, { name: 'x', clientId: idOf(2) }), exceptions };
    const grants = neededGrants(all).grants.map(({ name, namespace, ...grant }) =>
      createIdentityGrant({
        name,
        namespaces: [namespace],
        nodeIdentities: grant.nodeIdentities,
        clientIds: grant.clientIDs.map(({ id }) => id),
        resourceIds: grant.resourceIDs.map(({ id }) => id),
      }),
    );
    assert.deepEqual(neededGrants({ ...all, grants }).grants, []);
    assert.equal(createOwners('enforce', ...grants).owners.lacking('default'), undefined);
  });
});

describe('doubts about an entry of a grant', () => {
  const entry = { namespace: 'thief', field: 'clientIDs', id: idOf(1) } as const;
  const namedBy = (...namings: readonly (readonly [namespace: string, at: number])[]) =>
    namings.map(([namespace, createdAtWallMs], at) =>
      createIdentity({ namespace, name: `i${at}`, clientId: idOf(1), createdAtWallMs }),
    );

  it('are about a namespace that another one was before, and no other', () => {
    for (const [at, isOdd] of [
      [4, true],
      // Within the same second.
      [5, false],
      [6, false],
    ] as const) {
      const identities = namedBy(['thief', 14], ['thief', 5], ['thief', 14], ['shop', at]);
      assert.equal(createDoubts(identities, [], none).isOdd(entry), isOdd);
    }
  });

  it('compare ids of the field: a resource id is in the group of the nodes or is not', () => {
    const doubts = createDoubts([], [], { ...none, nodes: [node] });
    const id = normaliseResourceId(`${group}/providers/x/y`);
    const inGroup = { ...entry, field: 'resourceIDs', id } as const;
    assert.equal(doubts.isOdd(inGroup), true);
    assert.equal(doubts.isOdd({ ...inGroup, field: 'clientIDs' }), false);
    assert.equal(doubts.isOdd({ ...inGroup, id: id.replace('mc_g', 'mc_g2') }), false);
    const late = ['shop', 'thief'].map((namespace, createdAtWallMs) =>
      createIdentity({ namespace, clientId: '', resourceId: `${group}/x`, createdAtWallMs }),
    );
    const named = { ...inGroup, id: normaliseResourceId(`${group}/x`) };
    assert.equal(createDoubts(late, [], none).isOdd(named), true);
    assert.equal(createDoubts(late.slice(1), [], none).isOdd(named), false);
  });

  it('know no grant that gives nothing to anybody', () => {
    const isOdd = (...namespaces: readonly string[]) => {
      const grant = createIdentityGrant({ namespaces, clientIds: [idOf(1)] });
      return createDoubts([], [grant], none).isOdd(entry);
    };
    assert.deepEqual([isOdd(), isOdd('shop')], [false, true]);
  });

  it('name three namespaces', () => {
    const about = (...names: readonly string[]) => {
      const identities = namedBy(...names.map((each) => [each, 0] as const));
      return createDoubts(identities, [], none).about(entry, [])[0];
    };
    assert.equal(about('c', 'b', 'a'), 'named in namespace a, b, c too');
    assert.equal(about('e', 'd', 'c', 'b', 'a'), 'named in namespace a, b, c and 2 more too');
  });
});

describe('needed grants as YAML', () => {
  const shop: NeededGrant = {
    name: 'shop',
    namespace: 'shop',
    clientIDs: [
      { id: 'c1', usedBy: ['till'], doubts: ['named in thief', 'unused'] },
      { id: 'c2', usedBy: ['a', 'b', 'c', 'd'], doubts: [] },
      { id: 'c3', usedBy: ['e'], doubts: [] },
    ],
    resourceIDs: [],
    nodeIdentities: false,
  };
  const textOf = (...grants: readonly NeededGrant[]) =>
    renderGrants({ grants, knowsKubelet: true });
  const objectsOf = (text: string): readonly unknown[] =>
    [...parseAllDocuments(text)].map((each) => each.toJS() as unknown).filter(Boolean);
  const of = (name: string, spec: object) => ({
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentityGrant',
    metadata: { name },
    spec: { namespaces: [name], ...spec },
  });

  it('are objects that kubectl applies, without what is left to a person', () => {
    const resourceIDs = [{ id: '/x: #', usedBy: ['r'], doubts: [] }];
    const text = textOf({ ...shop, resourceIDs, nodeIdentities: true });
    const resources = { resourceIDs: ['/x: #'] };
    assert.deepEqual(objectsOf(text), [of('shop', { clientIDs: ['c2', 'c3'], ...resources })]);
    const clientIDs = ['c1', 'c2', 'c3'];
    assert.deepEqual(objectsOf(text.replaceAll(/^# (?= )/gm, '')), [
      of('shop', { clientIDs, ...resources, nodeIdentities: true }),
    ]);
  });

  it('are no objects where all is left to a person, until that person has uncommented it', () => {
    const node1 = { ...shop, name: '1', namespace: '1', clientIDs: [], nodeIdentities: true };
    const text = textOf({ ...shop, clientIDs: shop.clientIDs.slice(0, 1) }, node1);
    assert.deepEqual(objectsOf(text), []);
    assert.deepEqual(objectsOf(text.slice(text.indexOf('---')).replaceAll(/^# /gm, '')), [
      of('shop', { clientIDs: ['c1'] }),
      of('1', { nodeIdentities: true }),
    ]);
  });

  it('show who uses an identity, why it is left to a person, and that the kubelet’s is not known', () => {
    const text = textOf(shop);
    assert.match(text, /^# {5}- "c1" {2}# AzureIdentity till; CHECK: named in thief; unused$/m);
    assert.match(text, /^ {4}- "c2" {2}# AzureIdentity a, b, c and 1 more$/m);
    assert.match(text, /^ {4}- "c3" {2}# AzureIdentity e$/m);
    const hostile = { id: 'c', usedBy: ['x\n  nodeIdentities: true'], doubts: [] };
    assert.match(textOf({ ...shop, clientIDs: [hostile] }), /x\? {2}nodeIdentities: true$/m);
    const unknown = renderGrants({ grants: [shop], knowsKubelet: false });
    assert.match(unknown, /^# az aks show --query identityProfile\.kubeletidentity\.clientId$/m);
    assert.doesNotMatch(text, /az aks/);
  });
});
