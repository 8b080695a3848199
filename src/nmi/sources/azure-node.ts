/** Azure's name of this node, from its instance metadata, for commands in error texts. Pure. */
import { parseRecord, stringAt } from '../../base/json-value.ts';

/** Each value is a name that Azure allows, so it is a single word on a command line. */
export interface AzureNode {
  readonly kind: 'vmss' | 'vm';
  readonly subscriptionId: string;
  readonly resourceGroup: string;
  /** Name of the scale set, or of the VM if it is in none. */
  readonly name: string;
}

export const azureNodePath = '/metadata/instance/compute?api-version=2021-02-01&format=json';

/** @param body of the answer at {@link azureNodePath}. */
export function parseAzureNode(body: string): AzureNode | undefined {
  const compute = parseRecord(body);
  const scaleSet = stringAt(compute, 'vmScaleSetName');
  const node: AzureNode = {
    kind: scaleSet === '' ? 'vm' : 'vmss',
    subscriptionId: stringAt(compute, 'subscriptionId'),
    resourceGroup: stringAt(compute, 'resourceGroupName'),
    name: scaleSet === '' ? stringAt(compute, 'name') : scaleSet,
  };
  const { subscriptionId, resourceGroup, name } = node;
  return [subscriptionId, resourceGroup, name].every(isName) ? node : undefined;
}

/**
 * Names of resource groups may contain brackets, which a shell does not treat as part of a word.
 */
function isName(text: string): boolean {
  return /^\w[\w.-]{0,89}$/.test(text);
}
