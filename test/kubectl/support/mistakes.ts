/** Mistakes of users, as objects of a cluster: one at a time, with the command that finds it. */
export interface Mistake {
  readonly name: string;
  readonly objects: string;
  /** Arguments of `kubectl nmi`; default: explain pod web. */
  readonly words?: readonly string[];
}

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

/** So that each golden shows only one mistake. */
export const grant = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityGrant
metadata: { name: shop }
spec: { namespaces: [shop], clientIDs: [${clientId}, ${otherId}], nodeIdentities: true }
`;

export const good = pod() + identity() + binding() + agent();

const deployment = `---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop, labels: { aadpodidbinding: orders } }
spec:
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: app, image: app }] } }
`;

const owner =
  ', ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: web-7d4b9, uid: 7e570000-1ab0-4000-8000-000000000009 }]';
const clientIdOf = (id: string) => `, env: [{ name: AZURE_CLIENT_ID, value: ${id} }]`;
const rest = identity() + binding() + agent();

export const mistakes: readonly Mistake[] = [
  { name: 'granted', objects: good },
  { name: 'label-on-deployment', objects: pod({ labels: 'app: web', owner }) + deployment + rest },
  {
    name: 'pod-is-a-deployment',
    objects: pod({ name: 'web-7d4b9-x', labels: 'app: web', owner }) + deployment + rest,
  },
  { name: 'label-letter-case', objects: pod({ labels: 'aadpodidbinding: Orders' }) + rest },
  { name: 'label-key-letter-case', objects: pod({ labels: 'aadPodIdBinding: orders' }) + rest },
  { name: 'label-slip', objects: pod({ labels: 'aadpodidbinding: oders' }) + rest },
  { name: 'label-empty', objects: pod({ labels: "aadpodidbinding: ''" }) + rest },
  {
    name: 'binding-in-other-namespace',
    objects: pod() + identity() + binding(undefined, 'other') + agent(),
  },
  { name: 'binding-missing', objects: pod() + identity() + agent() },
  { name: 'identity-missing', objects: pod() + binding() + agent() },
  {
    name: 'identity-in-other-namespace',
    objects: pod() + binding() + identity('orders', undefined, 'other') + agent(),
  },
  {
    name: 'identity-name-slip',
    objects: pod() + identity() + binding('azureIdentity: order, selector: orders') + agent(),
  },
  {
    name: 'identity-without-ids',
    objects: pod() + identity('orders', 'type: 0') + binding() + agent(),
  },
  { name: 'client-id-wrong', objects: pod({ container: clientIdOf(otherId) }) + rest },
  {
    name: 'client-id-without-label',
    objects: pod({ labels: 'app: web', container: clientIdOf(clientId) }) + rest,
  },
  {
    name: 'exception-in-other-namespace',
    objects: pod({ labels: 'app: proxy' }) + exception('app: proxy', 'other') + agent(),
  },
  {
    name: 'exception-before-binding',
    objects:
      pod({ labels: 'aadpodidbinding: orders, app: proxy' }) + exception('app: proxy') + rest,
  },
  {
    name: 'two-identities',
    objects: `${good}${identity('reports', `type: 0, clientID: ${otherId}`)}${binding('azureIdentity: reports, selector: orders', 'shop', 'reports')}`,
  },
  {
    name: 'two-identities-strict',
    objects: `${pod()}${identity()}${binding()}${identity('reports', `type: 0, clientID: ${otherId}`)}${binding('azureIdentity: reports, selector: orders', 'shop', 'reports')}${agent({ args: '--strict-identity' })}`,
  },
  {
    name: 'service-account-constraint',
    objects:
      pod() +
      identity() +
      binding('azureIdentity: orders, selector: orders, serviceAccount: robot') +
      agent(),
  },
  {
    name: 'network-policy',
    objects: `${good}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-dns, namespace: shop }
spec: { podSelector: {}, policyTypes: [Egress], egress: [{ ports: [{ protocol: UDP, port: 53 }] }] }
`,
  },
  { name: 'node-without-agent', objects: pod() + identity() + binding() },
  { name: 'agent-not-ready', objects: pod() + identity() + binding() + agent({ ready: 'False' }) },
  {
    name: 'workload-identity-too',
    objects: pod({ labels: "aadpodidbinding: orders, azure.workload.identity/use: 'true'" }) + rest,
  },
  {
    name: 'resource-not-allowed',
    objects:
      pod() +
      identity('orders', `clientID: ${clientId}, allowedResources: ['https://vault.azure.net']`) +
      binding() +
      agent(),
    words: ['explain', 'pod', 'web', '--resource', 'https://management.azure.com/'],
  },
  { name: 'address-of-two-pods', objects: `${good}${pod({ name: 'twin' })}` },
  { name: 'namespace-unknown', objects: good, words: ['explain', 'pod', 'web', '-n', 'shpo'] },
  { name: 'pod-name-slip', objects: good, words: ['explain', 'pod', 'wbe', '-n', 'shop'] },
  {
    name: 'binding-of-nothing',
    objects: binding('azureIdentity: nothing, selector: nobody') + agent(),
    words: ['analyze'],
  },
];
