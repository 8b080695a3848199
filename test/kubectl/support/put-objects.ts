/** Objects on a real API server, with the status that only the kubelet writes otherwise. */
import { parseAllDocuments } from 'yaml';
import type { Cluster } from '../../cluster/support/cluster.ts';
import { agentSetUid } from './mistakes.ts';

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly status?: object;
}

export async function putObjects(cluster: Cluster, text: string): Promise<void> {
  const set = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';
  const { metadata: owner } = await cluster.admin.expect('GET', set);
  const yaml = text.replaceAll(agentSetUid, owner.uid);
  await cluster.applyOverHttp(yaml);
  for (const document of parseAllDocuments(yaml)) {
    const { kind, metadata, status } = (document.toJS() ?? { kind: '' }) as Manifest;
    if (kind !== 'Pod' || status === undefined) continue;
    const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/status`;
    await cluster.admin.expect(
      'PATCH',
      path,
      { status },
      { contentType: 'application/merge-patch+json' },
    );
  }
}

/** Deletes every object that a test may have put. */
export async function clearObjects(cluster: Cluster): Promise<void> {
  const paths = [
    ...['shop', 'other', 'kube-system'].map(
      (namespace) => `/api/v1/namespaces/${namespace}/pods?gracePeriodSeconds=0`,
    ),
    ...['shop', 'other'].flatMap((namespace) => [
      ...['azureidentities', 'azureidentitybindings', 'azurepodidentityexceptions'].map(
        (kind) => `/apis/aadpodidentity.k8s.io/v1/namespaces/${namespace}/${kind}`,
      ),
      `/apis/apps/v1/namespaces/${namespace}/deployments`,
      `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`,
    ]),
  ];
  for (const path of paths) await cluster.admin.expect('DELETE', path);
}

/** What a team of a namespace has: pods and the kinds of identities, and nothing else. */
export const developerRole = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: developer, namespace: shop }
rules:
  - { apiGroups: [''], resources: [pods], verbs: [get, list] }
  - { apiGroups: [aadpodidentity.k8s.io], resources: ['*'], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: developer, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: developer }
subjects: [{ kind: ServiceAccount, name: developer, namespace: shop }]
`;

/** The process that writes conditions may read the Secrets of the namespace. */
export const secretsRole = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: secrets, namespace: shop }
rules: [{ apiGroups: [''], resources: [secrets], verbs: [get] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: secrets, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: secrets }
subjects: [{ kind: ServiceAccount, name: nmi-conditions, namespace: kube-system }]
`;
