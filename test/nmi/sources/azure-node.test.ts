import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseAzureNode } from '../../../src/nmi/sources/azure-node.ts';

const compute = {
  name: 'aks-pool-1_0',
  resourceGroupName: 'MC_rg_cluster_westeurope',
  subscriptionId: '00000000-0000-4000-8000-000000000001',
  vmScaleSetName: 'aks-pool-1',
};

describe('the Azure name of a node', () => {
  it('is that of a scale set, or of the machine if it is in none', () => {
    assert.deepEqual(parseAzureNode(JSON.stringify(compute)), {
      kind: 'vmss',
      name: 'aks-pool-1',
      resourceGroup: compute.resourceGroupName,
      subscriptionId: compute.subscriptionId,
    });
    const alone = parseAzureNode(JSON.stringify({ ...compute, vmScaleSetName: '' }));
    assert.deepEqual([alone?.kind, alone?.name], ['vm', 'aks-pool-1_0']);
  });

  it('contains no text that a shell could read as more than a word', () => {
    for (const bad of ['', '-x', 'a b', 'a;b', '$(a)', 'a\n', "'", 'x'.repeat(91), 7, null]) {
      for (const field of ['resourceGroupName', 'subscriptionId', 'vmScaleSetName']) {
        if (field === 'vmScaleSetName' && (bad === '' || typeof bad !== 'string')) continue;
        const text = JSON.stringify({ ...compute, [field]: bad });
        assert.equal(parseAzureNode(text), undefined, text);
      }
    }
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        assert.equal(parseAzureNode(text), undefined);
      }),
    );
  });
});
