/** The scale sets and virtual machines of a cluster, derived from its nodes. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { labelsOf, nameOf, specOf, type RawObject } from '../base/object.ts';
import { azLine, type AzLine } from './az.ts';

/** A resource that an identity is assigned to. */
export interface Compute {
  readonly kind: 'vmss' | 'vm';
  readonly subscription: string;
  readonly resourceGroup: string;
  readonly name: string;
  readonly pool: string;
  readonly nodes: readonly string[];
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
    const key = all.toLowerCase();
    const before = computes.get(key)?.nodes ?? [];
    computes.set(key, {
      kind: /ScaleSets$/i.test(type) ? 'vmss' : 'vm',
      subscription,
      resourceGroup,
      name,
      pool:
        labelsOf(node).get('kubernetes.azure.com/agentpool') ??
        labelsOf(node).get('agentpool') ??
        '',
      nodes: [...before, nameOf(node)],
    });
  }
  return [...computes.values()].toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

/** @param verb what is done with the identities of the scale set or machine. */
export function identityLine(
  { kind, subscription, resourceGroup, name }: Compute,
  verb: 'assign' | 'show',
  resourceIds: readonly string[] = [],
): AzLine {
  return azLine([kind, 'identity', verb], {
    subscription,
    'resource-group': resourceGroup,
    name,
    ...(resourceIds.length === 0 ? {} : { identities: resourceIds }),
  });
}
