/** An identity with the bindings that name it, and the pods of these. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { labelsOf, nameOf, specOf, type RawObject } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { valueOf, type Kubectl } from '../transport/kubectl.ts';
import { identityResources } from './resources.ts';

export interface Found {
  readonly identity: RawObject;
  /** All of the namespace. */
  readonly identities: readonly RawObject[];
  readonly bindings: readonly RawObject[];
  readonly pods: readonly RawObject[];
}

/** @throws PluginError when there is none. */
export async function findIdentity(
  kubectl: Kubectl,
  namespace: string,
  name: string,
): Promise<Found> {
  const kinds = [identityResources.identities, identityResources.bindings, 'pods'];
  const reads = kinds.map(async (resource) =>
    valueOf(await kubectl.list(resource, namespace), `list ${resource} in namespace ${namespace}`),
  );
  const [identities = [], all = [], pods = []] = await Promise.all(reads);
  const identity = identities.find((each) => nameOf(each) === name);
  if (identity === undefined) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name}`,
      `Create it: kubectl nmi identity add ${name} -n ${namespace} --resource-id …`,
    );
  }
  const bindings = all.filter((each) => stringAt(specOf(each), 'azureIdentity') === name);
  const bound = pods.filter((pod) => bindings.some((binding) => selects(binding, pod)));
  return { identity, identities, bindings, pods: bound };
}

function selects(binding: RawObject, pod: RawObject): boolean {
  const { selector, serviceAccount = '' } = specOf(binding);
  const isLabelled = selector !== '' && labelsOf(pod).get(bindingLabel) === selector;
  const account = stringAt(specOf(pod), 'serviceAccountName');
  return isLabelled && (serviceAccount === '' || serviceAccount === account);
}
