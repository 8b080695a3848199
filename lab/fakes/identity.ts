/** Managed identities for the lab: all fields are derived from the name. */
import { createHash } from 'node:crypto';

import type { LabIdentity } from './token.ts';

export const labTenantId = '7e570000-1ab0-4000-8000-000000000001';
export const labSubscriptionId = '7e570000-1ab0-4000-8000-000000000002';
const labResourceGroup = 'rg-lab';
const nodeResourceGroup = 'MC_rg-lab_lab_westeurope';

/** A user-assigned identity; the same name gives the same ids in every run. */
export function createLabIdentity(name: string): LabIdentity {
  return {
    name,
    clientId: deriveGuid('client', name),
    objectId: deriveGuid('object', name),
    resourceId:
      `/subscriptions/${labSubscriptionId}/resourcegroups/${labResourceGroup}` +
      `/providers/Microsoft.ManagedIdentity/userAssignedIdentities/${name}`,
  };
}

/** The node's system-assigned identity: no pod may get it unless the pod is excepted. */
export function createNodeIdentity(): LabIdentity {
  return {
    name: 'node',
    clientId: deriveGuid('client', 'node'),
    objectId: deriveGuid('object', 'node'),
    resourceId:
      `/subscriptions/${labSubscriptionId}/resourcegroups/${nodeResourceGroup}` +
      '/providers/Microsoft.Compute/virtualMachineScaleSets/aks-lab-vmss',
  };
}

function deriveGuid(kind: string, name: string): string {
  const hex = createHash('sha256').update(`${kind}/${name}`).digest('hex');
  // Version and variant digits of a random GUID, so that strict parsers accept it.
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}
