import assert from 'node:assert/strict';
import { it } from 'node:test';
import { scaleSetOf } from '../../../src/nmi/base/scale-set.ts';

it('finds the scale set of a node by its name, or takes the node for one', () => {
  for (const [node, scaleSet] of [
    ['aks-pool1-12345678-vmss000000', 'aks-pool1-12345678-vmss'],
    ['aks-pool1-12345678-vmss00001a', 'aks-pool1-12345678-vmss'],
    ['aks-pool1-12345678-0', 'aks-pool1-12345678-0'],
    ['aks-system-surge-x7k2p', 'aks-system-surge-x7k2p'],
    ['', ''],
  ] as const) {
    assert.equal(scaleSetOf(node), scaleSet);
  }
});
