/** Identity bindings of AKS: the az line, and who may use the managed identity. */
import { roleOfIdentity } from '../../nmi/sources/entra/identity-use.ts';
import { azLine, type AzLine } from './az.ts';
import { checkClientId, type Federation, type Subject } from './federation.ts';

export function planIdentityBinding(
  name: string,
  { clientId, resourceId }: Pick<Federation, 'clientId' | 'resourceId'>,
  subjects: readonly Subject[],
): { readonly objects: readonly object[]; readonly az: readonly AzLine[] } {
  checkClientId(clientId);
  const role = roleOfIdentity(clientId.toLowerCase());
  const { apiVersion, kind, metadata } = role;
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind, name: metadata.name };
  // One for each account: who applies them must not take the right from another namespace.
  const bindings = subjects.map(({ namespace, serviceAccount }) => ({
    apiVersion,
    kind: 'ClusterRoleBinding',
    metadata: { name: `${metadata.name}-${namespace}-${serviceAccount}` },
    roleRef,
    subjects: [{ kind: 'ServiceAccount', name: serviceAccount, namespace }],
  }));
  const line = azLine(['aks', 'identity-binding', 'create'], {
    'resource-group': 'CLUSTER_RESOURCE_GROUP',
    'cluster-name': 'CLUSTER',
    name,
    'managed-identity-resource-id': resourceId === '' ? 'RESOURCE_ID' : resourceId,
  });
  return { objects: [role, ...bindings], az: [line] };
}
