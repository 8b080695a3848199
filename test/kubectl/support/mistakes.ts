/** Objects of a cluster as manifests. */
export const clientId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
export const otherId = '9a0b7c66-5f0e-4c64-b7f4-6bfb5e1d2a10';

interface PodFields {
  readonly name?: string;
  readonly labels?: string;
  readonly spec?: string;
  readonly container?: string;
  readonly owner?: string;
  readonly ip?: string;
  readonly phase?: string;
  readonly node?: string;
}

export function pod({
  name = 'web',
  labels = 'aadpodidbinding: orders',
  spec = '',
  container = '',
  owner = '',
  ip = '10.244.1.7',
  phase = 'Running',
  node = 'node-1',
}: PodFields = {}): string {
  return `---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { ${labels} }${owner} }
spec: { nodeName: ${node}, containers: [{ name: app, image: app${container} }]${spec} }
status: { phase: ${phase}, podIP: ${ip}, podIPs: [{ ip: ${ip} }] }
`;
}

export function identity(
  name = 'orders',
  spec = `type: 0, clientID: ${clientId}`,
  namespace = 'shop',
): string {
  return `---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ${spec} }
`;
}

export function binding(
  spec = 'azureIdentity: orders, selector: orders',
  namespace = 'shop',
  name = 'orders',
): string {
  return `---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ${spec} }
`;
}

export function exception(labels: string, namespace = 'shop'): string {
  return `---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzurePodIdentityException
metadata: { name: proxy, namespace: ${namespace} }
spec: { podLabels: { ${labels} } }
`;
}

/** In whose place a test writes the pods: there is no controller that would. */
export const agentSet = `
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: nmi, namespace: kube-system }
spec:
  selector: { matchLabels: { component: nmi } }
  template:
    metadata: { labels: { component: nmi } }
    spec: { containers: [{ name: nmi, image: 'example/entra-pod-identity:0.1.0' }] }
`;

/** In manifests: the uid that the server gave to `agentSet`. */
export const agentSetUid = 'UID-OF-THE-AGENTS';

export function agent({
  args = '',
  ready = 'True',
  node = 'node-1',
  account = 'default',
} = {}): string {
  return `---
apiVersion: v1
kind: Pod
metadata:
  name: nmi-${node}
  namespace: kube-system
  labels: { component: nmi, app.kubernetes.io/component: nmi }
  ownerReferences: [{ apiVersion: apps/v1, kind: DaemonSet, name: nmi, uid: ${agentSetUid}, controller: true }]
spec: { nodeName: ${node}, serviceAccountName: ${account}, hostNetwork: true, containers: [{ name: nmi, image: 'example/entra-pod-identity:0.1.0', args: [${args}] }] }
status: { phase: Running, podIP: 10.224.0.4, podIPs: [{ ip: 10.224.0.4 }], conditions: [{ type: Ready, status: '${ready}' }] }
`;
}

export const grant = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityGrant
metadata: { name: shop }
spec: { namespaces: [shop], clientIDs: [${clientId}, ${otherId}], nodeIdentities: true }
`;

export const good = pod() + identity() + binding() + agent();
