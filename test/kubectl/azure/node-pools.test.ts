import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { computesOf, assignLine } from '../../../src/kubectl/azure/node-pools.ts';

const node = (name: string, providerID: string) => ({
  metadata: { name },
  spec: { providerID },
});
const group = 'azure:///subscriptions/s1/resourceGroups/MC_rg/providers/Microsoft.Compute';

describe('the scale sets of a cluster', () => {
  it('are found once each, with machines outside scale sets', () => {
    const computes = computesOf([
      node('b-0', `${group}/virtualMachineScaleSets/aks-b-vmss/virtualMachines/0`),
      node(
        'b-1',
        `${group.replace('MC_rg', 'mc_RG')}/virtualMachineScaleSets/aks-b-vmss/virtualMachines/1`,
      ),
      node('a', `${group}/virtualMachines/vm-a`),
      node('kind', 'kind://docker/kind/worker'),
      // Such a name would be a flag or a file for az.
      node('flag', `${group}/virtualMachines/--debug`),
      node('file', `${group.replace('MC_rg', '@file')}/virtualMachines/vm`),
    ]);
    assert.deepEqual(
      computes.map(({ kind, name }) => [kind, name]),
      [
        ['vmss', 'aks-b-vmss'],
        ['vm', 'vm-a'],
      ],
    );
    const [first, second] = computes;
    assert.equal(
      assignLine(first!, '/id').join(' '),
      'vmss identity assign --subscription s1 --resource-group mc_RG --name aks-b-vmss --identities /id',
    );
    assert.match(assignLine(second!, '/id').join(' '), /^vm identity assign .*--name vm-a /);
  });
});
