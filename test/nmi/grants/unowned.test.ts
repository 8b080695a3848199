import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { IdentityGrant } from '../../../src/cache/index/objects.ts';
import { countUnowned, maxUnowned, unownedOfPod } from '../../../src/nmi/grants/unowned.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../support/cache-objects.ts';
import { world } from '../../world.ts';

const labels = { aadpodidbinding: 'label' };
const idOf = (number: number): string =>
  `22729e47-74ce-4b43-8eea-${String(number).padStart(12, '0')}`;

function open(...identityGrants: readonly Partial<IdentityGrant>[]) {
  const { pods, grants, clusterState } = world({ owners: 'warn', identityGrants });
  const named = () =>
    [...pods.all()].flatMap((pod) =>
      unownedOfPod(pod, clusterState).map(
        ([, { kind, name, entry }]) => `${pod.name}: ${kind} ${name} ${entry.field}`,
      ),
    );
  return { pods, grants, named, count: () => countUnowned(clusterState) };
}

describe('the identities without a grant', () => {
  it('are those of live pods of this node, each once', () => {
    const { pods, grants, named, count } = open({
      namespaces: ['default'],
      clientIds: [idOf(2)],
    });
    for (const number of [1, 2, 3]) {
      const name = `i${number}`;
      grants.identities.upsert(createIdentity({ name, clientId: idOf(number) }));
    }
    grants.identities.upsert(createIdentity({ name: 'unusable', clientId: 'x' }));
    for (const name of ['i1', 'i2', 'unusable']) {
      grants.bindings.upsert(createBinding({ name, identityName: name }));
    }
    assert.equal(count(), 0);
    pods.upsert(createPod({ name: 'ended', labels, phase: 'Succeeded' }));
    assert.equal(count(), 0);
    pods.remove(createPod({ name: 'ended' }));
    for (const name of ['a', 'b']) pods.upsert(createPod({ name, labels }));
    pods.upsert(createPod({ name: 'unbound' }));
    // The same identity by another label.
    grants.bindings.upsert(createBinding({ name: 'c', identityName: 'i1', selector: 'other' }));
    pods.upsert(createPod({ name: 'c', labels: { aadpodidbinding: 'other' } }));
    assert.deepEqual(
      named(),
      ['a', 'b', 'c'].map((pod) => `${pod}: AzureIdentity i1 clientIDs`),
    );
    assert.equal(count(), 1);
  });

  it('include those of the node, by an exception', () => {
    const exception = createException({ podLabels: labels });
    const without = open({ namespaces: ['default'], clientIds: [idOf(1)] });
    without.pods.upsert(createPod({ labels }));
    without.grants.exceptions.upsert(exception);
    const named = without.named().map((each) => each.replace(/^.*: /, ''));
    assert.deepEqual(named, ['AzurePodIdentityException exception nodeIdentities']);
    assert.equal(without.count(), 1);
    const owned = open({ namespaces: ['default'], nodeIdentities: true });
    owned.pods.upsert(createPod({ labels }));
    owned.grants.exceptions.upsert(exception);
    assert.deepEqual([owned.named(), owned.count()], [[], 0]);
  });

  it('are counted up to a limit, however many exist', () => {
    const { pods, grants, count } = open();
    for (let label = 0; label < 6; label++) {
      const selector = `label-${label}`;
      pods.upsert(createPod({ name: selector, labels: { aadpodidbinding: selector } }));
      for (let number = 0; number < 200; number++) {
        const name = `${selector}-${number}`;
        const clientId = idOf(label * 200 + number);
        grants.identities.upsert(createIdentity({ name, clientId }));
        grants.bindings.upsert(createBinding({ name, identityName: name, selector }));
      }
    }
    assert.equal(count(), maxUnowned);
  });
});
