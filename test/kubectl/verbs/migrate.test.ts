import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  createBinding,
  createIdentity,
  kinds,
  play,
} from '../support/recorded-kubectl.ts';

const identity = createIdentity('orders', {
  type: 0,
  clientID: clientA,
  resourceID: ordersId.toUpperCase(),
});
const testBedOf = (changes = {}) => boundTestBed({ [kinds.identities]: [identity], ...changes });

describe('kubectl nmi migrate', () => {
  it('needs a verb', async () => {
    const { code, stderr } = await play(['migrate'], testBedOf());
    assert.deepEqual([code, stderr.includes('No verb is given after migrate.')], [2, true]);
  });
});

describe('kubectl nmi migrate export-addon', () => {
  it('has the author’s fields, and none of the server or the add-on', async () => {
    const object = {
      ...identity,
      metadata: {
        name: 'orders',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        managedFields: [{}],
        generation: 3,
        labels: { 'addonmanager.kubernetes.io/mode': 'Reconcile', team: 'shop' },
        annotations: {
          'kubectl.kubernetes.io/last-applied-configuration': '{}',
          'shop.example/contact': 'orders',
        },
      },
      status: { availableReplicas: 1 },
    };
    const { stdout } = await play(
      ['migrate', 'export-addon'],
      testBedOf({ [kinds.identities]: [object] }),
    );
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(first, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: {
        name: 'orders-copy',
        namespace: 'shop',
        labels: { team: 'shop' },
        annotations: { 'shop.example/contact': 'orders' },
      },
      spec: { type: 0, clientID: clientA, resourceID: ordersId.toUpperCase() },
    });
    const { kind, spec } = second as { kind: string; spec: { azureIdentity: string } };
    assert.deepEqual([kind, spec.azureIdentity], ['AzureIdentityBinding', 'orders-copy']);
  });

  it('leaves the names of objects that no add-on manages', async () => {
    const { stdout } = await play(['migrate', 'export-addon'], testBedOf());
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    const { metadata } = first as { metadata: object };
    assert.deepEqual(metadata, { name: 'orders', namespace: 'shop' });
    assert.equal((second as { spec: { azureIdentity: string } }).spec.azureIdentity, 'orders');
  });

  it('leaves what a binding of the add-on names, if that is not of the add-on', async () => {
    const labels = { 'addonmanager.kubernetes.io/mode': 'Reconcile' };
    const spec = { azureIdentity: 'orders', selector: 'orders' };
    const { stdout } = await play(
      ['migrate', 'export-addon'],
      testBedOf({ [kinds.bindings]: [createBinding('orders', spec, { labels })] }),
    );
    const [, copy] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(copy, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentityBinding',
      metadata: { name: 'orders-copy', namespace: 'shop' },
      spec,
    });
  });

  it('does not make an empty file', async () => {
    assert.equal((await play(['migrate', 'export-addon', '-n', 'none'], testBedOf())).code, 1);
  });
});
