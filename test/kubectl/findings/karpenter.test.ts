import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { findUserAssigned } from '../../../src/kubectl/findings/karpenter.ts';
import {
  clientA,
  createBinding,
  createIdentity,
  createPod,
  createSnapshot,
} from '../support/recorded-kubectl.ts';

const poolLabel = 'karpenter.sh/nodepool';
const nodeOf = (name: string, labels: object): RawObject => ({ metadata: { name, labels } });
const fixed = nodeOf('node-1', { agentpool: 'one' });
const made = nodeOf('aks-default-x7', { [poolLabel]: 'default', team: 'shop' });
const labels = { aadpodidbinding: 'orders' };
const podOn = (nodeName: string, spec: object = {}, status: object = {}) =>
  createPod('web', { labels, spec: { nodeName, ...spec }, status });

function found(changes: Parameters<typeof createSnapshot>[0]) {
  const snapshot = createSnapshot({ nodes: [fixed, made], ...changes });
  return findUserAssigned(snapshot.nodes, snapshot);
}

const codesOf = (changes: Parameters<typeof createSnapshot>[0]) =>
  found(changes).map(({ severity, object }) => `${severity} ${object}`);

describe('identities of type 0 on nodes that Karpenter makes', () => {
  it('are warned of where a pod runs on such a node', () => {
    const [finding, ...others] = found({ pods: [podOn('aks-default-x7')] });
    assert.deepEqual(others, []);
    assert.equal(finding?.code, 'type_0_on_karpenter');
    assert.equal(finding.severity, 'warning');
    assert.equal(finding.object, 'AzureIdentity shop/orders');
    assert.deepEqual(finding.details, ['Pod shop/web']);
    assert.match(finding.fix, /kubectl nmi migrate to-federation orders -n shop/);
    const noType = createIdentity('orders', { clientID: clientA });
    assert.equal(found({ pods: [podOn('aks-default-x7')], identities: [noType] }).length, 1);
  });

  it('need such a node, a bound pod that lives, and type 0', () => {
    const pods = [podOn('aks-default-x7')];
    assert.deepEqual(codesOf({ pods, nodes: [fixed] }), []);
    assert.deepEqual(codesOf({ pods, nodes: undefined }), []);
    assert.deepEqual(codesOf({ pods: [podOn('node-1'), podOn('')] }), []);
    assert.deepEqual(codesOf({ pods: [podOn('aks-default-x7', {}, { phase: 'Succeeded' })] }), []);
    const other = createBinding('orders', { azureIdentity: 'orders', selector: 'other' });
    assert.deepEqual(codesOf({ pods, bindings: [other] }), []);
    for (const type of [1, 2, 3]) {
      const identity = createIdentity('orders', { type, clientID: clientA });
      assert.deepEqual(codesOf({ pods, identities: [identity] }), []);
    }
  });

  it('may be of a chain, unless it begins with a service account', () => {
    const pods = [podOn('aks-default-x7')];
    const chain = (spec: object) => found({ pods, identities: [createIdentity('orders', spec)] });
    const [finding] = chain({ type: 4, clientID: clientA });
    assert.match(finding?.fix ?? '', /^Run its pods on other nodes/);
    assert.deepEqual(chain({ type: 4, federation: 'pod' }), []);
  });

  it('name ten pods at most', () => {
    const pods = Array.from({ length: 12 }, (_, index) => {
      const pod = podOn('aks-default-x7');
      return { ...pod, metadata: { ...(pod['metadata'] as object), name: `web-${index}` } };
    });
    const [finding] = found({ pods });
    assert.equal(finding?.details.length, 10);
  });
});
