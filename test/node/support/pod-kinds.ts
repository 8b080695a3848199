/** Every kind of pod, and the token that it gets in each mode. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import {
  askFrom,
  clientContainer,
  clientPod,
  describeAnswer,
  untilPodsReady,
  type ClientPod,
} from './client-pods.ts';
import { eventuallyByProcess } from './machine.ts';
import { productImage } from './images.ts';
import type { TestNode } from './node.ts';

export type Mode = 'ebpf' | 'iptables';

interface PodKind extends ClientPod {
  /** The lab's name of an identity, or the status of a refusal. */
  readonly gets: string;
  /** In iptables mode, which does not redirect pods on the host network. */
  readonly getsByIptables?: string;
}

const bound = (name: string): Readonly<Record<string, string>> => ({ aadpodidbinding: name });
const small = { cpu: '10m', memory: '32Mi' };

const kinds: readonly PodKind[] = [
  { name: 'unbound', gets: '400' },
  { name: 'excepted', labels: { excepted: 'yes' }, gets: 'node' },
  {
    name: 'host-bound',
    labels: bound('app'),
    spec: { hostNetwork: true },
    gets: 'app',
    getsByIptables: 'node',
  },
  { name: 'host-unbound', spec: { hostNetwork: true }, gets: 'node' },
  {
    name: 'guaranteed',
    labels: bound('two'),
    container: { resources: { requests: small, limits: small } },
    gets: 'two',
  },
  {
    name: 'burstable',
    labels: bound('two'),
    container: { resources: { requests: small } },
    gets: 'two',
  },
  { name: 'best-effort', labels: bound('two'), gets: 'two' },
  { name: 'federated', labels: bound('fed'), gets: 'fed' },
  {
    name: 'privileged',
    labels: bound('two'),
    container: { securityContext: { privileged: true } },
    gets: 'two',
  },
  {
    name: 'shared-processes',
    labels: bound('two'),
    spec: { shareProcessNamespace: true },
    gets: 'two',
  },
  {
    name: 'restricted',
    labels: bound('two'),
    container: {
      securityContext: {
        runAsUser: 1000,
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      },
    },
    gets: 'two',
  },
];

/**
 * A static pod, started by the kubelet from a file; its UID in the API is not that in its cgroup.
 */
const staticPod = clientPod({ name: 'static', labels: bound('two') });
const staticFile = '/etc/kubernetes/manifests/static.yaml';

/** An init container and a native sidecar each send one request, as early as they can. */
const initPod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'early', namespace: 'default', labels: bound('two') },
  spec: {
    terminationGracePeriodSeconds: 1,
    initContainers: [
      { ...clientContainer(['ask']), name: 'init' },
      { ...clientContainer(['ask-and-idle']), name: 'sidecar', restartPolicy: 'Always' },
    ],
    containers: [clientContainer(['ask-and-idle'])],
  },
};

const labels = { app: 'demo', ...bound('app') };
const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'demo', namespace: 'default' },
  spec: {
    replicas: 2,
    selector: { matchLabels: { app: 'demo' } },
    template: {
      metadata: { labels },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          {
            name: 'demo',
            image: productImage.name,
            imagePullPolicy: 'Never',
            args: ['demo', '--period=2s'],
          },
        ],
      },
    },
  },
};

export async function startPodKinds(node: TestNode): Promise<void> {
  node.machine.write(staticFile, JSON.stringify(staticPod));
  await node.apply(...kinds.map(clientPod), initPod, deployment);
  await untilPodsReady(node, ...kinds.map(({ name }) => name), 'early');
  await eventuallyByProcess(() => untilPodsReady(node, 'static-node-1'), 30_000);
  const wait = ['wait', '--for=condition=Available', 'deployment/demo', '--timeout=90s'];
  await node.kubectl(wait, { timeoutMs: 100_000 });
}

export async function assertPodKinds(node: TestNode, mode: Mode): Promise<void> {
  for (const kind of kinds) {
    const wanted = mode === 'iptables' ? (kind.getsByIptables ?? kind.gets) : kind.gets;
    await assertGets(node, kind.name, wanted);
  }
  await assertGets(node, 'static-node-1', 'two');
}

/** The pod's result within 30 s: an agent that has just started may answer "retry". */
export async function assertGets(node: TestNode, pod: string, wanted: string): Promise<void> {
  await eventuallyByProcess(async () => {
    const got = describeAnswer(await askFrom(node, pod));
    const isWanted = /^\d+$/.test(wanted) ? got.startsWith(`${wanted} `) : got === wanted;
    assert.ok(isWanted, `pod ${pod} got ${got}, not ${wanted}`);
  }, 30_000);
}

/** Containers that sent one request at their start, while the agent ran. */
export async function assertEarlyPods(node: TestNode): Promise<void> {
  for (const container of ['init', 'sidecar', 'client']) {
    const log = await node.kubectl(['logs', 'early', `--container=${container}`]);
    assert.match(log, /"identity":"two"/, `container ${container}: ${log}`);
  }
  const demo = await node.kubectl(['logs', 'deployment/demo']);
  assert.match(demo, /successfully acquired /, demo);
}

const podNetwork = '/etc/cni/net.d/10-pod-network.conflist';
/** Where the plugin has a file for each address that a pod has. */
const takenAddresses = '/var/lib/cni/networks/pod-network';

/** Each pod gets its own token, or none, from its first request on. */
export async function assertReusedAddress(node: TestNode): Promise<void> {
  const taken = new Set(await readdir(node.machine.path(takenAddresses)));
  const all = Array.from({ length: 100 }, (_, at) => `10.244.0.${150 + at}`);
  const reusedIp = all.find((ip) => !taken.has(ip)) ?? '';
  const wide = await readFile(node.machine.path(podNetwork), 'utf8');
  const narrow = `"rangeStart": "${reusedIp}", "rangeEnd": "${reusedIp}", "subnet"`;
  node.machine.write(podNetwork, wide.replace('"subnet"', narrow));
  try {
    for (const [at, owner] of ['app', 'two', '', 'app', 'two'].entries()) {
      const name = `reuse-${at}`;
      const wish = { name, labels: owner === '' ? {} : bound(owner) };
      await node.apply(clientPod({ ...wish, args: ['ask-and-idle'] }));
      await untilPodsReady(node, name);
      const ip = ['get', 'pod', name, '--output=jsonpath={.status.podIP}'];
      assert.equal(await node.kubectl(ip), reusedIp);
      await assertGets(node, name, owner === '' ? '400' : owner);
      const first = await node.kubectl(['logs', name]);
      const identity = /"identity":"(\w+)"/.exec(first)?.[1] ?? '';
      assert.ok(identity === owner || identity === '', `pod ${name} first got ${first}`);
      // Half of the pods are deleted from the API server before they end on the node.
      const force = at % 2 === 0 ? [] : ['--grace-period=0', '--force'];
      await node.kubectl(['delete', 'pod', name, ...force]);
    }
  } finally {
    node.machine.write(podNetwork, wide);
  }
}
