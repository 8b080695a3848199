import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { renderGrants } from '../../../src/kubectl/findings/grants-yaml.ts';
import type { NeededGrant } from '../../../src/kubectl/findings/needed-grants.ts';

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

describe('needed grants as YAML', () => {
  const textOf = (...grants: readonly NeededGrant[]) =>
    renderGrants({ grants, knowsKubelet: true });
  const objectsOf = (text: string): readonly unknown[] => {
    const documents = parseAllDocuments(text);
    assert.ok(Array.isArray(documents));
    return documents.map((each) => each.toJS() as unknown).filter((each) => each !== null);
  };
  const head = { apiVersion: 'aadpodidentity.k8s.io/v1', kind: 'AzureIdentityGrant' };
  const metadata = { name: 'shop' };

  it('are objects that kubectl applies, without what is left to a person', () => {
    const resourceIDs = [{ id: '/x: #', usedBy: ['r'], doubts: [] }];
    const text = textOf({ ...shop, resourceIDs, nodeIdentities: true });
    const spec = { namespaces: ['shop'], clientIDs: ['c2', 'c3'], resourceIDs: ['/x: #'] };
    assert.deepEqual(objectsOf(text), [{ ...head, metadata, spec }]);
    assert.deepEqual(objectsOf(text.replaceAll(/^# (?= )/gm, '')), [
      {
        ...head,
        metadata,
        spec: { ...spec, clientIDs: ['c1', 'c2', 'c3'], nodeIdentities: true },
      },
    ]);
  });

  it('are no objects where all is left to a person, until that person has uncommented it', () => {
    const clientIDs = shop.clientIDs.slice(0, 1);
    const node = { ...shop, name: '1', namespace: '1', clientIDs: [], nodeIdentities: true };
    const text = textOf({ ...shop, clientIDs }, node);
    assert.deepEqual(objectsOf(text), []);
    const body = text.slice(text.indexOf('---'));
    assert.deepEqual(objectsOf(body.replaceAll(/^# /gm, '')), [
      { ...head, metadata, spec: { namespaces: ['shop'], clientIDs: ['c1'] } },
      { ...head, metadata: { name: '1' }, spec: { namespaces: ['1'], nodeIdentities: true } },
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
