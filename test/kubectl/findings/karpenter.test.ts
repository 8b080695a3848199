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

  it('are mentioned where a pod may run there next', () => {
    assert.deepEqual(codesOf({ pods: [podOn('node-1')] }), ['info AzureIdentity shop/orders']);
    const both = found({ pods: [podOn('node-1'), podOn('aks-default-x7')] });
    assert.deepEqual(
      both.map(({ severity, details }) => [severity, details.length]),
      [['warning', 1]],
    );
    assert.deepEqual(found({ pods: [podOn('')] })[0]?.details, ['Pod shop/web']);
    assert.deepEqual(codesOf({ pods: [podOn('')] }), ['info AzureIdentity shop/orders']);
    const allowing = { nodeSelector: { team: 'shop' } };
    assert.deepEqual(codesOf({ pods: [podOn('', allowing)] }).length, 1);
  });

  it('are of no concern to pods that such a node is not for', () => {
    const term = (operator: string) => ({
      matchExpressions: [{ key: poolLabel, operator }],
    });
    const affinity = (...terms: readonly object[]) => ({
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms },
        },
      },
    });
    const onNode = podOn('aks-default-x7', { nodeSelector: { agentpool: 'one' } });
    assert.deepEqual(codesOf({ pods: [onNode] }), ['warning AzureIdentity shop/orders']);
    for (const spec of [
      { nodeSelector: { agentpool: 'one' } },
      affinity(term('DoesNotExist')),
      { ...affinity(term('Exists')), nodeSelector: { agentpool: 'one' } },
    ]) {
      assert.deepEqual(codesOf({ pods: [podOn('node-1', spec)] }), [], JSON.stringify(spec));
    }
    const either = affinity(term('DoesNotExist'), term('Exists'));
    assert.equal(codesOf({ pods: [podOn('node-1', either)] }).length, 1);
  });

  it('need such a node, a bound pod that lives, and type 0', () => {
    const pods = [podOn('aks-default-x7')];
    assert.deepEqual(codesOf({ pods, nodes: [fixed] }), []);
    assert.deepEqual(codesOf({ pods, nodes: undefined }), []);
    assert.deepEqual(codesOf({ pods: [podOn('aks-default-x7', {}, { phase: 'Succeeded' })] }), []);
    const other = createBinding('orders', { azureIdentity: 'orders', selector: 'other' });
    assert.deepEqual(codesOf({ pods, bindings: [other] }), []);
    for (const type of [1, 2, 3]) {
      const identity = createIdentity('orders', { type, clientID: clientA });
      assert.deepEqual(codesOf({ pods, identities: [identity] }), []);
    }
  });

  it('are found at once among thousands of nodes that pods may not run on', () => {
    const nodes = Array.from({ length: 5_000 }, (_, at) =>
      nodeOf(`aks-${at}`, { [poolLabel]: 'x' }),
    );
    const pinned = podOn('node-1', { nodeSelector: { agentpool: 'one' } });
    const pods = [...Array.from({ length: 10_000 }, () => pinned), podOn('aks-4999')];
    const startedAtMs = performance.now();
    assert.equal(found({ nodes, pods })[0]?.severity, 'warning');
    assert.ok(performance.now() - startedAtMs < 5_000);
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
