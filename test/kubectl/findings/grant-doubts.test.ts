import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { normaliseResourceId } from '../../../src/cache/index/identifiers.ts';
import { createDoubts } from '../../../src/kubectl/findings/grant-doubts.ts';
import { createIdentity, createIdentityGrant } from '../../support/cache-objects.ts';

const id = '22729e47-74ce-4b43-8eea-000000000001';
const nothing = { pods: [], workloads: [], accounts: [], nodes: [] };
const entry = { namespace: 'thief', field: 'clientIDs', id } as const;

describe('doubts about an entry of a grant', () => {
  it('are about a namespace that another one was before, and no other', () => {
    const oddAfter = (own: number, other: number): boolean =>
      createDoubts(
        [
          createIdentity({ namespace: 'thief', name: 'a', clientId: id, createdAtWallMs: own + 9 }),
          createIdentity({ namespace: 'thief', name: 'b', clientId: id, createdAtWallMs: own }),
          createIdentity({ namespace: 'thief', name: 'c', clientId: id, createdAtWallMs: own + 9 }),
          createIdentity({ namespace: 'shop', clientId: id, createdAtWallMs: other }),
        ],
        [],
        nothing,
      ).isOdd(entry);
    assert.equal(oddAfter(5, 4), true);
    assert.equal(oddAfter(5, 5), false, 'within the same second');
    assert.equal(oddAfter(5, 6), false);
  });

  it('name other namespaces with the identity, and that no pod uses it', () => {
    const own = createIdentity({ namespace: 'thief', clientId: id });
    const other = createIdentity({ namespace: 'shop', clientId: id });
    const labels = { aadpodidbinding: 'web' };
    const pods = [{ metadata: { namespace: 'thief', labels } }, { metadata: { namespace: 'x' } }];
    const unused = 'no pod of the namespace uses it';
    assert.deepEqual(createDoubts([own], [], { ...nothing, pods }).about(entry, ['web']), []);
    assert.deepEqual(createDoubts([own], [], { ...nothing, pods }).about(entry, ['db']), [unused]);
    assert.deepEqual(createDoubts([own, other], [], nothing).about(entry, ['web']), [
      'named in namespace shop too',
      unused,
    ]);
    const account = {
      metadata: { namespace: 'y', annotations: { 'azure.workload.identity/client-id': id } },
    };
    assert.deepEqual(
      createDoubts([own], [], { ...nothing, pods, accounts: [account] }).about(entry, ['web']),
      ['named in namespace y too'],
    );
  });

  it('compare resource ids as well', () => {
    const resourceId = '/subscriptions/s/resourceGroups/g/providers/x/y';
    const namedBy = (...namespaces: readonly string[]) =>
      createDoubts(
        namespaces.map((namespace, createdAtWallMs) =>
          createIdentity({ namespace, clientId: '', resourceId, createdAtWallMs }),
        ),
        [],
        nothing,
      ).isOdd({ namespace: 'thief', field: 'resourceIDs', id: normaliseResourceId(resourceId) });
    assert.deepEqual([namedBy('thief'), namedBy('shop', 'thief')], [false, true]);
  });

  it('know the identity of the kubelet, and those in the resource group of the nodes', () => {
    const group = '/subscriptions/s/resourceGroups/MC_g';
    const machine = 'providers/Microsoft.Compute/virtualMachineScaleSets/p/virtualMachines/0';
    const node = {
      metadata: {
        labels: { 'kubernetes.azure.com/kubelet-identity-client-id': id.toUpperCase() },
      },
      spec: { providerID: `azure://${group}/${machine}` },
    };
    const doubts = createDoubts([], [], { ...nothing, nodes: [node, {}] });
    assert.equal(doubts.knowsKubelet, true);
    assert.equal(createDoubts([], [], nothing).knowsKubelet, false);
    assert.equal(doubts.about(entry, [])[0], 'the identity of the kubelet');
    const resourceId = normaliseResourceId(`${group}/providers/x/y`);
    const inGroup = { ...entry, field: 'resourceIDs', id: resourceId } as const;
    assert.match(doubts.about(inGroup, [])[0] ?? '', /^in the resource group of the nodes/);
    assert.equal(doubts.isOdd(inGroup), true);
    assert.equal(doubts.isOdd({ ...inGroup, field: 'clientIDs' }), false);
    assert.equal(doubts.isOdd({ ...inGroup, id: resourceId.replace('mc_g', 'mc_g2') }), false);
  });

  it('know no grant that gives nothing to anybody', () => {
    const about = (...namespaces: readonly string[]) =>
      createDoubts([], [createIdentityGrant({ namespaces, clientIds: [id] })], nothing).isOdd(
        entry,
      );
    assert.equal(about(), false);
    assert.equal(about('shop'), true);
  });

  it('name three namespaces', () => {
    const about = (...namespaces: readonly string[]) =>
      createDoubts(
        namespaces.map((namespace) => createIdentity({ namespace, clientId: id })),
        [],
        nothing,
      ).about(entry, [])[0];
    assert.equal(about('c', 'b', 'a'), 'named in namespace a, b, c too');
    assert.equal(about('e', 'd', 'c', 'b', 'a'), 'named in namespace a, b, c and 2 more too');
  });
});
