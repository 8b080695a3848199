/** The right of service accounts to use a managed identity by an identity binding of AKS. Pure. */

/** Of the token of a service account, in every cloud. */
export const bindingAudience = 'api://AKSIdentityBinding';

/** The ClusterRole; it is bound to service accounts. */
export function roleOfIdentity(clientId: string) {
  return {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: `use-mi-${clientId}` },
    rules: [
      {
        apiGroups: ['cid.wi.aks.azure.com'],
        resources: [clientId],
        verbs: ['use-managed-identity'],
      },
    ],
  };
}
