/** The plugin in this process, over the real kubectl and a real API server, and objects for it. */
import { execFile } from 'node:child_process';
import { parseAllDocuments } from 'yaml';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { runPlugin } from '../../../src/kubectl/plugin.ts';
import type { Api } from './api.ts';
import type { Cluster } from './cluster.ts';
import { kubectlEnvironment } from './kubectl.ts';

export interface RealMachine {
  /** Path of the program. */
  readonly kubectl: string;
  readonly kubeconfig: string;
  /** Folder of kubectl's discovery cache. */
  readonly home: string;
  /** Of each call of kubectl. */
  readonly onCall?: (args: readonly string[], input: string) => void;
  /**
   * Of the same user, for `kubectl get --raw`: it prints what the server answers, and each start of
   * kubectl takes 0.1 s of processor time. What is refused there is asked by kubectl.
   */
  readonly api?: Api;
  /** Time since the test's objects were put: by default they are too old to wait for others. */
  readonly laterMs?: number;
}

export function machineOf({ binaries, adminKubeconfig, folder }: Cluster): RealMachine {
  return { kubectl: binaries.kubectl, kubeconfig: adminKubeconfig, home: folder };
}

/** @param words of the command line; a text is split at its blanks. */
export async function runOn(machine: RealMachine, words: string | readonly string[]) {
  const { kubectl, kubeconfig, home, onCall, api, laterMs = 10 * 60_000 } = machine;
  let [stdout, stderr] = ['', ''];
  const code = await runPlugin(typeof words === 'string' ? words.split(' ') : words, {
    environment: { KUBECTL: kubectl },
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    run: async (program, args, { input = '' } = {}) => {
      onCall?.(args, input);
      return (
        (await readDirectly(args, api)) ??
        execute(program, args, input, kubectlEnvironment(home, kubeconfig))
      );
    },
    readText: () => Promise.resolve(undefined),
    listFolder: () => Promise.resolve(undefined),
    wallMs: () => Date.now() + laterMs,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

async function readDirectly(
  args: readonly string[],
  api: Api | undefined,
): Promise<ProgramRun | undefined> {
  const path = /^get --raw=(\/api\S*)/.exec(args.join(' '))?.[1];
  if (api === undefined || path === undefined || args.some((word) => word.startsWith('--as=')))
    return undefined;
  const { status, body } = await api.request('GET', path);
  return status === 200 ? { code: 0, stdout: JSON.stringify(body), stderr: '' } : undefined;
}

function execute(
  program: string,
  args: readonly string[],
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<ProgramRun> {
  const { promise, resolve } = Promise.withResolvers<ProgramRun>();
  const child = execFile(program, args, { env, maxBuffer: 1e8 }, (error, stdout, stderr) => {
    const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : undefined;
    resolve({ code, stdout, stderr });
  });
  child.stdin?.on('error', () => undefined).end(input);
  return promise;
}

export const clientId = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
export const tenant = '7e570000-1ab0-4000-8000-000000000001';
export const ordersId =
  '/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders';

/** In whose place a test writes the pods: there is no controller that would. */
export const agentSet = `---
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

export function agent({ args = '', account = 'default' } = {}): string {
  return `---
apiVersion: v1
kind: Pod
metadata:
  name: nmi-node-1
  namespace: kube-system
  labels: { component: nmi, app.kubernetes.io/component: nmi }
  ownerReferences: [{ apiVersion: apps/v1, kind: DaemonSet, name: nmi, uid: ${agentSetUid}, controller: true }]
spec: { nodeName: node-1, serviceAccountName: ${account}, hostNetwork: true, containers: [{ name: nmi, image: 'example/entra-pod-identity:0.1.0', args: [${args}] }] }
status: { phase: Running, podIP: 10.224.0.4, podIPs: [{ ip: 10.224.0.4 }], conditions: [{ type: Ready, status: 'True' }] }
`;
}

/** A running pod with the label of the identity of the same name. */
export function boundPod(name = 'web', label = 'orders', ip = '10.244.1.7'): string {
  return `---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { aadpodidbinding: ${label} } }
spec: { nodeName: node-1, containers: [{ name: app, image: app }] }
status: { phase: Running, podIP: ${ip}, podIPs: [{ ip: ${ip} }] }
`;
}

/** An AzureIdentity with a binding of the same name. */
export function boundIdentity(
  name = 'orders',
  spec = `type: 0, clientID: ${clientId}`,
  namespace = 'shop',
): string {
  return `---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ${spec} }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: ${name}, namespace: ${namespace} }
spec: { azureIdentity: ${name}, selector: ${name} }
`;
}

export const good = boundPod() + boundIdentity() + agent();

/** A service account that may do this in a namespace, or in all. */
export function roleFor(account: string, namespace: string, rules: string, of = namespace): string {
  const [kind, place] = of === '' ? ['ClusterRole', ''] : ['Role', `, namespace: ${of}`];
  const name = `${account}-of-${namespace}`;
  return `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ${kind}
metadata: { name: ${name}${place} }
rules: [${rules}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ${kind}Binding
metadata: { name: ${name}${place} }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ${kind}, name: ${name} }
subjects: [{ kind: ServiceAccount, name: ${account}, namespace: ${namespace} }]
`;
}

export const readPods = "{ apiGroups: [''], resources: [pods], verbs: [get, list] }";
export const readIdentities =
  "{ apiGroups: [aadpodidentity.k8s.io], resources: ['*'], verbs: [get, list] }";

/** Writes objects, with the status that only the kubelet writes otherwise. */
export async function putObjects(cluster: Cluster, text: string): Promise<void> {
  const set = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';
  const { metadata: owner } = await cluster.admin.expect('GET', set);
  const yaml = text.replaceAll(agentSetUid, owner.uid);
  await cluster.applyOverHttp(yaml);
  for (const document of parseAllDocuments(yaml)) {
    const { kind, metadata, status } = (document.toJS() ?? { kind: '' }) as {
      readonly kind: string;
      readonly metadata: { readonly name: string; readonly namespace: string };
      readonly status?: object;
    };
    if (kind !== 'Pod' || status === undefined) continue;
    const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/status`;
    const contentType = 'application/merge-patch+json';
    await cluster.admin.expect('PATCH', path, { status }, { contentType });
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
