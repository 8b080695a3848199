import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import { describe, it } from 'node:test';
import { stringAt } from '../../../src/base/json-value.ts';
import { titleOf, labelsOf, statusOf } from '../../../src/kubectl/base/object.ts';
import { parseManifests, snapshotOf } from '../../../src/kubectl/cluster/manifests.ts';

const text = `
kind: AzureIdentity
metadata: { name: a }
---
# nothing
---
kind: List
items:
  - { kind: AzureIdentityBinding, metadata: { name: b, namespace: x } }
  - { kind: CronJob, metadata: { name: c }, spec: { jobTemplate: { spec: { template: { metadata: { labels: { l: v } } } } } } }
  - { kind: Deployment, metadata: { name: d }, spec: { template: {} } }
`;

describe('manifests in a file', () => {
  it('are the objects that a cluster would have, with the pods of their workloads', () => {
    const snapshot = snapshotOf(parseManifests('f', text, 'shop'));
    assert.deepEqual(snapshot.identities.map(titleOf), ['shop/a']);
    assert.deepEqual(snapshot.bindings.map(titleOf), ['x/b']);
    assert.deepEqual(snapshot.pods.map(titleOf), ['shop/c (CronJob)', 'shop/d (Deployment)']);
    assert.equal(labelsOf(snapshot.pods[0] ?? {}).get('l'), 'v');
    assert.equal(new Set(snapshot.pods.map((pod) => JSON.stringify(pod['status']))).size, 2);
  });

  it('have no namespace in a grant, which is of the cluster', () => {
    const grantsOf = (...metadata: readonly object[]) => {
      const items = metadata.map((each) => ({ kind: 'AzureIdentityGrant', metadata: each }));
      const list = JSON.stringify({ kind: 'List', items });
      return snapshotOf(parseManifests('f', list, 'shop')).grants?.map(titleOf);
    };
    assert.deepEqual(grantsOf({ name: 'a' }), ['a']);
    assert.deepEqual(grantsOf({ name: 'a' }, { name: 'b', namespace: 'x' }), ['a', 'b']);
    assert.equal(grantsOf(), undefined, 'the cluster may have some');
  });

  it('have an address for each of many workloads', () => {
    const items = Array.from({ length: 300 }, (_, index) => ({
      kind: 'Deployment',
      metadata: { name: `d${index}` },
    }));
    const { pods } = snapshotOf(
      parseManifests('f', JSON.stringify({ kind: 'List', items }), 'shop'),
    );
    const ips = pods.map((pod) => stringAt(statusOf(pod), 'podIP'));
    assert.equal(new Set(ips).size, 300);
    assert.ok(ips.every(isIPv4), ips.join());
  });

  it('are refused with the line that is not YAML', () => {
    assert.throws(() => parseManifests('f.yaml', 'a: [', 'shop'), /f\.yaml is no YAML: .*line 1/);
  });
});
