import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { renderGrants } from '../../../src/kubectl/findings/grants-yaml.ts';
import type { NeededGrant } from '../../../src/kubectl/findings/needed-grants.ts';

const shop: NeededGrant = {
  name: 'shop',
  namespace: 'shop',
  clientIDs: [
    { id: 'c1', usedBy: ['till'], alsoIn: ['thief'] },
    { id: 'c2', usedBy: ['a', 'b', 'c', 'd'], alsoIn: [] },
    { id: 'c3', usedBy: ['e'], alsoIn: [] },
  ],
  resourceIDs: [],
  nodeIdentities: false,
};

describe('needed grants as YAML', () => {
  it('are objects that kubectl applies', () => {
    const node = { ...shop, name: '1', namespace: '1', clientIDs: [], nodeIdentities: true };
    const byResource = { ...shop, resourceIDs: [{ id: '/x: #', usedBy: ['r'], alsoIn: [] }] };
    const documents = parseAllDocuments(renderGrants([byResource, node]));
    assert.ok(Array.isArray(documents));
    const objects = documents.map((each) => each.toJS() as unknown).filter((each) => each !== null);
    const head = { apiVersion: 'aadpodidentity.k8s.io/v1', kind: 'AzureIdentityGrant' };
    assert.deepEqual(objects, [
      {
        ...head,
        metadata: { name: 'shop' },
        spec: { namespaces: ['shop'], clientIDs: ['c1', 'c2', 'c3'], resourceIDs: ['/x: #'] },
      },
      { ...head, metadata: { name: '1' }, spec: { namespaces: ['1'], nodeIdentities: true } },
    ]);
  });

  it('show which namespace uses an identity, and which others name it', () => {
    const text = renderGrants([shop]);
    assert.match(text, /^ {4}- "c1" {2}# AzureIdentity till; ALSO NAMED IN namespace thief$/m);
    assert.match(text, /^ {4}- "c2" {2}# AzureIdentity a, b, c and 1 more$/m);
    assert.match(text, /^ {4}- "c3" {2}# AzureIdentity e$/m);
    const hostile = { id: 'c', usedBy: ['x\n  nodeIdentities: true'], alsoIn: [] };
    assert.match(
      renderGrants([{ ...shop, clientIDs: [hostile] }]),
      /x\? {2}nodeIdentities: true$/m,
    );
  });
});
