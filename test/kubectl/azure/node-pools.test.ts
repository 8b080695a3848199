import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { computesOf, identityLine } from '../../../src/kubectl/azure/node-pools.ts';

const node = (name: string, providerID: string, agentpool = 'p1') => ({
  metadata: { name, labels: { agentpool } },
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
      node('a', `${group}/virtualMachines/vm-a`, 'p2'),
      node('kind', 'kind://docker/kind/worker'),
      // Such a name would be a flag or a file for az.
      node('flag', `${group}/virtualMachines/--debug`),
      node('file', `${group.replace('MC_rg', '@file')}/virtualMachines/vm`),
    ]);
    assert.deepEqual(
      computes.map(({ kind, name, pool, nodes }) => [kind, name, pool, nodes]),
      [
        ['vmss', 'aks-b-vmss', 'p1', ['b-0', 'b-1']],
        ['vm', 'vm-a', 'p2', ['a']],
      ],
    );
    const [first, second] = computes;
    assert.equal(
      identityLine(first!, 'assign', ['/id']).join(' '),
      'vmss identity assign --subscription s1 --resource-group mc_RG --name aks-b-vmss --identities /id',
    );
    assert.match(identityLine(second!, 'show').join(' '), /^vm identity show .*--name vm-a$/);
  });
});
