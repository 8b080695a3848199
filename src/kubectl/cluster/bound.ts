/** An identity, and the pods of the bindings that name it. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { labelsOf, nameOf, specOf, type RawObject } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { valueOf, type Kubectl } from '../transport/kubectl.ts';
import { identityResources } from './resources.ts';

interface Found {
  readonly identity: RawObject;
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
  const [identities = [], bindings = [], pods = []] = await Promise.all(reads);
  const identity = identities.find((each) => nameOf(each) === name);
  if (identity === undefined) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name}`,
      `Create it: kubectl nmi identity add ${name} -n ${namespace} --resource-id …`,
    );
  }
  const own = bindings.filter((each) => stringAt(specOf(each), 'azureIdentity') === name);
  return { identity, pods: pods.filter((pod) => own.some((each) => selects(each, pod))) };
}

function selects(binding: RawObject, pod: RawObject): boolean {
  const { selector, serviceAccount = '' } = specOf(binding);
  const isLabelled = selector !== '' && labelsOf(pod).get(bindingLabel) === selector;
  const account = stringAt(specOf(pod), 'serviceAccountName');
  return isLabelled && (serviceAccount === '' || serviceAccount === account);
}
