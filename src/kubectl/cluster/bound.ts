/** Identities with the bindings that name them, and the pods of these. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { nearest } from '../../base/nearest.ts';
import { labelsOf, nameOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { valueOf, type Kubectl, type Scope } from '../transport/kubectl.ts';
import { identityResources } from './resources.ts';
import type { Snapshot } from './snapshot.ts';

export type Bound = Pick<Snapshot, 'identities' | 'bindings' | 'pods'>;

/** Of one identity, or of all. */
export type Uses = Omit<Bound, 'identities'>;

export async function readBound(kubectl: Kubectl, scope: Scope): Promise<Bound> {
  const { identities, bindings } = identityResources;
  const where = scope === undefined ? 'in all namespaces' : `in namespace ${scope}`;
  const reads = [identities, bindings, 'pods'].map(async (resource) =>
    valueOf(await kubectl.list(resource, scope), `list ${resource} ${where}`),
  );
  const [ownIdentities = [], ownBindings = [], pods = []] = await Promise.all(reads);
  return { identities: ownIdentities, bindings: ownBindings, pods };
}

/** With the pods of its bindings. @throws PluginError when there is none. */
export async function findIdentity(
  kubectl: Kubectl,
  namespace: string,
  name: string,
): Promise<Uses & { readonly identity: RawObject }> {
  const bound = await readBound(kubectl, namespace);
  const identity = bound.identities.find((each) => nameOf(each) === name);
  if (identity === undefined) {
    const meant = nearest(name, bound.identities.map(nameOf));
    throw failedError(
      `namespace ${namespace} has no AzureIdentity ${name}`,
      meant === undefined
        ? `List those of the namespace: kubectl nmi identity list -n ${namespace}`
        : `Did you mean ${meant}?`,
    );
  }
  return { identity, ...usesIn(bound)(identity) };
}

/**
 * The bindings that name an identity, and their pods, each once, without a look at every pod for
 * every binding.
 */
export function usesIn({ bindings, pods }: Uses): (identity: RawObject) => Uses {
  const keyOf = (object: RawObject, name: string) => `${namespaceOf(object)}/${name}`;
  const byLabel = Map.groupBy(pods, (pod) => keyOf(pod, labelsOf(pod).get(bindingLabel) ?? ''));
  const byIdentity = Map.groupBy(bindings, (each) =>
    keyOf(each, stringAt(specOf(each), 'azureIdentity')),
  );
  const podsOf = (binding: RawObject): readonly RawObject[] => {
    const { selector, serviceAccount } = specOf(binding);
    if (typeof selector !== 'string' || selector === '') return [];
    const account = serviceAccount ?? '';
    return (byLabel.get(keyOf(binding, selector)) ?? []).filter(
      (pod) => account === '' || account === stringAt(specOf(pod), 'serviceAccountName'),
    );
  };
  return (identity) => {
    const own = byIdentity.get(titleOf(identity)) ?? [];
    return { bindings: own, pods: [...new Set(own.flatMap(podsOf))] };
  };
}
