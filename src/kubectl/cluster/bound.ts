/** Identities with the bindings that name them, and the pods of these. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { labelsOf, nameOf, namespaceOf, specOf, type RawObject } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { valueOf, type Kubectl, type Scope } from '../transport/kubectl.ts';
import { identityResources } from './resources.ts';
import type { Snapshot } from './snapshot.ts';

export type Bound = Pick<Snapshot, 'identities' | 'bindings' | 'pods'>;

export async function readBound(kubectl: Kubectl, scope: Scope): Promise<Bound> {
  const { identities, bindings } = identityResources;
  const where = scope === undefined ? 'in all namespaces' : `in namespace ${scope}`;
  const reads = [identities, bindings, 'pods'].map(async (resource) =>
    valueOf(await kubectl.list(resource, scope), `list ${resource} ${where}`),
  );
  const [ownIdentities = [], ownBindings = [], pods = []] = await Promise.all(reads);
  return { identities: ownIdentities, bindings: ownBindings, pods };
}

/** With the bindings that name it, and their pods. @throws PluginError when there is none. */
export async function findIdentity(
  kubectl: Kubectl,
  namespace: string,
  name: string,
): Promise<Bound & { readonly identity: RawObject }> {
  const { identities, bindings, pods } = await readBound(kubectl, namespace);
  const identity = identities.find((each) => nameOf(each) === name);
  if (identity === undefined) {
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name}`,
      `Create it: kubectl nmi identity add ${name} -n ${namespace} --resource-id …`,
    );
  }
  const own = bindings.filter((each) => stringAt(specOf(each), 'azureIdentity') === name);
  return { identity, identities, bindings: own, pods: podsByBinding(pods)(own) };
}

/** The pods of some bindings, each once, without a look at every pod for every binding. */
export function podsByBinding(
  pods: readonly RawObject[],
): (bindings: readonly RawObject[]) => readonly RawObject[] {
  const keyOf = (object: RawObject, label: string) => `${namespaceOf(object)}/${label}`;
  const byLabel = Map.groupBy(pods, (pod) => keyOf(pod, labelsOf(pod).get(bindingLabel) ?? ''));
  return (bindings) => {
    const found = bindings.flatMap((binding) => {
      const { selector, serviceAccount } = specOf(binding);
      if (typeof selector !== 'string' || selector === '') return [];
      const account = serviceAccount ?? '';
      return (byLabel.get(keyOf(binding, selector)) ?? []).filter(
        (pod) => account === '' || account === stringAt(specOf(pod), 'serviceAccountName'),
      );
    });
    return [...new Set(found)];
  };
}
