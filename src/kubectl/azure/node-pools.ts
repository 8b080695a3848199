/** The scale sets and virtual machines of a cluster, derived from its nodes. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { specOf, type RawObject } from '../base/object.ts';
import { azLine, type AzLine } from './az.ts';

export interface Compute {
  readonly kind: 'vmss' | 'vm';
  readonly subscription: string;
  readonly resourceGroup: string;
  readonly name: string;
}

/** Names of Azure, none of which starts like a flag or a file of az. */
const providerId =
  /^azure:\/\/\/subscriptions\/(\w[\w-]*)\/resourceGroups\/([\w(][\w.()-]*)\/providers\/Microsoft\.Compute\/(virtualMachineScaleSets|virtualMachines)\/(\w[\w.-]*)/i;

/** Each once, by name; nodes outside Azure are left out. */
export function computesOf(nodes: readonly RawObject[]): readonly Compute[] {
  const computes = new Map<string, Compute>();
  for (const node of nodes) {
    const id = stringAt(specOf(node), 'providerID');
    const [all, subscription = '', resourceGroup = '', type = '', name = ''] =
      providerId.exec(id) ?? [];
    if (all === undefined) continue;
    const kind = /ScaleSets$/i.test(type) ? 'vmss' : 'vm';
    computes.set(all.toLowerCase(), { kind, subscription, resourceGroup, name });
  }
  // No mutation: which of two with the same name is first does not matter.
  return [...computes.values()].toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

export function assignLine(
  { kind, subscription, resourceGroup, name }: Compute,
  resourceId: string,
): AzLine {
  const compute = { subscription, 'resource-group': resourceGroup, name };
  return azLine([kind, 'identity', 'assign'], { ...compute, identities: resourceId });
}
