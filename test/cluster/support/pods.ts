/** Pods of a test cluster without a scheduler and a kubelet: the test writes their part. */
import type { Api, KubeBody } from './api.ts';

export interface PodWish {
  readonly namespace: string;
  readonly name: string;
  /** The node that the scheduler chose. */
  readonly node: string;
  readonly ip: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly serviceAccountName?: string;
  /** Default: as Kubernetes does, a token of the API server. */
  readonly mountsToken?: boolean;
}

/** A running pod. Its namespace and service account must exist. */
export async function runPod(admin: Api, wish: PodWish): Promise<KubeBody> {
  const { namespace, name, node, ip, labels = {}, serviceAccountName = 'default' } = wish;
  const { mountsToken: automountServiceAccountToken = true } = wish;
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  await admin.expect('POST', pods, {
    metadata: { name, labels },
    spec: {
      nodeName: node,
      serviceAccountName,
      automountServiceAccountToken,
      containers: [{ name: 'app', image: 'app' }],
    },
  });
  return setPodStatus(admin, wish, { phase: 'Running', podIP: ip, podIPs: [{ ip }] });
}

/** Changes what the kubelet reports. */
export function setPodStatus(
  admin: Api,
  { namespace, name }: Pick<PodWish, 'namespace' | 'name'>,
  status: object,
): Promise<KubeBody> {
  const path = `/api/v1/namespaces/${namespace}/pods/${name}/status`;
  return admin.expect('PATCH', path, { status }, { contentType: 'application/merge-patch+json' });
}

/** Without the grace period that a kubelet would have to end. */
export function deletePod(
  admin: Api,
  { namespace, name }: Pick<PodWish, 'namespace' | 'name'>,
): Promise<KubeBody> {
  const path = `/api/v1/namespaces/${namespace}/pods/${name}?gracePeriodSeconds=0`;
  return admin.expect('DELETE', path);
}
