/** Keys and certificates of a one-node cluster, as files. */
import { generateKeyPairSync } from 'node:crypto';
import { fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { createLabAuthority, type ServerCertificate } from '../../../lab/fakes/authority.ts';
import type { ApiAccess } from '../../cluster/support/api.ts';
import { renderKubeconfig } from '../../cluster/support/kubeconfig.ts';

export interface ClusterPki {
  /** Access as a member of system:masters. */
  readonly admin: ApiAccess;
  readonly caPem: string;
  /** Certificate of the fake Entra ID. */
  readonly entraTls: ServerCertificate;
  /** File contents by their paths in the node. */
  readonly files: Readonly<Record<string, string>>;
}

const folder = '/etc/kubernetes';
const { nodeIp, azureIp } = fabricAddresses;
const url = `https://${nodeIp}:6443`;

/** Users by the names of their kubeconfigs. */
const users: Readonly<Record<string, { name: string; organizations?: readonly string[] }>> = {
  kubelet: { name: 'system:node:node-1', organizations: ['system:nodes'] },
  'controller-manager': { name: 'system:kube-controller-manager' },
  scheduler: { name: 'system:kube-scheduler' },
  proxy: { name: 'system:kube-proxy' },
};

/** `serviceIp` is the first of the cluster's service addresses. */
export async function createClusterPki(serviceIp: string): Promise<ClusterPki> {
  const authority = await createLabAuthority();
  const caPem = authority.certificatePem;
  const issue = async (name: string, organizations: readonly string[] = []): Promise<ApiAccess> => {
    const client = await authority.issueClient(name, { signedBy: 'authority', organizations });
    return { url, caPem, certPem: client.certificatePem, keyPem: client.keyPem };
  };
  const server = await authority.issueServer([nodeIp, serviceIp, 'kubernetes.default.svc']);
  const kubeletClient = await issue('kube-apiserver', ['system:masters']);
  const signing = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const files: Record<string, string> = {
    [`${folder}/pki/ca.crt`]: caPem,
    [`${folder}/pki/apiserver.crt`]: server.cert,
    [`${folder}/pki/apiserver.key`]: server.key,
    [`${folder}/pki/kubelet-client.crt`]: kubeletClient.certPem ?? '',
    [`${folder}/pki/kubelet-client.key`]: kubeletClient.keyPem ?? '',
    [`${folder}/pki/service-account.key`]: signing.privateKey,
    [`${folder}/pki/service-account.pub`]: signing.publicKey,
  };
  for (const [file, { name, organizations }] of Object.entries(users)) {
    files[`${folder}/${file}.kubeconfig`] = renderKubeconfig(await issue(name, organizations));
  }
  return {
    admin: await issue('admin', ['system:masters']),
    caPem,
    entraTls: await authority.issueServer([azureIp]),
    files,
  };
}
