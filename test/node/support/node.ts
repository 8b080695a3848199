/**
 * A cluster of one real node: etcd, API server, controller manager, scheduler, kube-proxy, kubelet,
 * containerd and runc as units of systemd, with a bridge for the pods, and Azure's side beyond the
 * node's default route.
 */
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import {
  createEntraApplication,
  type EntraApplication,
} from '../../../lab/fakes/entra/applications.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import { renderKubeconfig } from '../../cluster/support/kubeconfig.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { startAzure, type Azure } from './azure.ts';
import type { NodeSystem } from './node-system.ts';
import {
  eventuallyByProcess,
  openMachine,
  runProcess,
  type Machine,
  type RunOptions,
} from './machine.ts';
import { createClusterPki } from './pki.ts';

export interface NodeOptions {
  readonly cgroupDriver: 'systemd' | 'cgroupfs';
  /** Key of a taint with which the kubelet registers the node. */
  readonly startupTaint?: string;
  /** Most pods of the node; default: the kubelet's, 110. */
  readonly maxPods?: number;
  /** Archives of images besides those of every node. */
  readonly images?: readonly string[];
  /** Of Entra ID, besides the one of every node. */
  readonly applications?: readonly EntraApplication[];
  /**
   * Folders of this machine by their read-only paths in the node. Pods with the runtime `gvisor` need its
   * programs in /opt/gvisor.
   */
  readonly binds?: Readonly<Record<string, string>>;
  /** Each pod has a link of its own, not one behind a bridge. */
  readonly ownLinks?: boolean;
}

export interface TestNode extends AsyncDisposable {
  readonly machine: Machine;
  readonly azure: Azure;
  /** PEM of the authority that issued Entra ID's certificate. */
  readonly caPem: string;
  /** As an administrator, from outside the node. */
  kubectl(args: readonly string[], options?: RunOptions): Promise<string>;
  helm(args: readonly string[], options?: RunOptions): Promise<string>;
  /** The plugin, from its sources. */
  plugin(args: readonly string[], options?: RunOptions): Promise<string>;
  /** `kubectl apply`. */
  apply(...objects: readonly object[]): Promise<void>;
  /** A script in a folder of this machine, with kubectl, helm and the folder's `bin`. */
  type(script: string, folder: string): Promise<string>;
  /** Boots and waits until the API server answers and the kubelet reports the node ready. */
  boot(): Promise<void>;
  /** The last lines of a unit's log. */
  journal(unit: string): Promise<string>;
}

const serviceIp = '10.96.0.1';
const system = join(import.meta.dirname, '../system');
const readyLimitMs = 180_000;
const typedLimitMs = 300_000;

/** These would change the machine's devices or sysctls, or wait for a console. */
const maskedUnits = [
  ...['systemd-udevd.service', 'systemd-udev-trigger.service', 'systemd-udevd-control.socket'],
  ...['systemd-udevd-kernel.socket', 'systemd-sysctl.service', 'systemd-modules-load.service'],
  ...['systemd-tmpfiles-setup-dev.service', 'systemd-tmpfiles-setup-dev-early.service'],
  ...['kmod-static-nodes.service', 'modprobe@.service', 'systemd-binfmt.service'],
  ...['systemd-logind.service', 'getty.target', 'console-getty.service', 'systemd-pstore.service'],
  ...['proc-sys-fs-binfmt_misc.automount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'],
  ...['sys-kernel-config.mount', 'sys-fs-fuse-connections.mount', 'dev-hugepages.mount'],
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'fstrim.timer'],
];

/** Identities of the metadata service, each with a binding for the pods with the same label. */
const identityNames = ['app', 'two'] as const;
/** Client ID of the identity that is federated with the cluster. */
const federated = createEntraApplication('fed', {
  federatedCredentials: [
    {
      issuer: 'https://kubernetes.default.svc',
      subject: 'system:serviceaccount:default:default',
      audience: 'api://AzureADTokenExchange',
    },
  ],
});

export async function openNode(nodeSystem: NodeSystem, options: NodeOptions): Promise<TestNode> {
  await using opening = new AsyncDisposableStack();
  const pki = await createClusterPki(serviceIp);
  const images = dirname(nodeSystem.images[0] ?? '');
  const machine = opening.use(
    await openMachine({
      root: nodeSystem.root,
      binds: {
        '/opt/cluster': nodeSystem.programs.cluster,
        '/opt/kubernetes': nodeSystem.programs.kubernetes,
        '/opt/images': images,
        ...options.binds,
      },
      states: ['containerd', 'kubelet', 'etcd', 'load'],
    }),
  );
  configure(machine, options);
  for (const [file, text] of Object.entries(pki.files)) machine.write(file, text, 0o600);

  const home = machine.path('/root');
  mkdirSync(home, { recursive: true });
  const kubeconfig = join(home, 'kubeconfig');
  writeFileSync(kubeconfig, renderKubeconfig(pki.admin), { mode: 0o600 });
  const env = {
    PATH: process.env['PATH'],
    HOME: home,
    KUBECONFIG: kubeconfig,
    KUBECTL: nodeSystem.programs.kubectl,
  };
  const programs = [nodeSystem.programs.kubectl, nodeSystem.programs.helm]
    .map((program) => dirname(program))
    .join(':');
  const inAzure = (program: string, args: readonly string[], more: RunOptions = {}) =>
    runProcess('nsenter', [`--net=${machine.azurePath}`, '--', program, ...args], { ...more, env });
  const kubectl: TestNode['kubectl'] = (args, more) =>
    inAzure(nodeSystem.programs.kubectl, args, more);
  const apply: TestNode['apply'] = async (...objects) => {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await kubectl(['apply', '-f', '-'], { input });
  };
  const journal: TestNode['journal'] = (unit) =>
    machine.run(['journalctl', '--no-pager', '--output=cat', '--lines=30', '--unit', unit]);

  async function boot(): Promise<void> {
    await machine.boot();
    await eventuallyByProcess(() => kubectl(['get', '--raw', '/readyz']), readyLimitMs);
    const ready = ['--for=condition=Ready', 'node/node-1', `--timeout=${readyLimitMs / 1000}s`];
    await eventuallyByProcess(() => kubectl(['get', 'node/node-1']), readyLimitMs);
    await kubectl(['wait', ...ready], { timeoutMs: readyLimitMs });
  }

  try {
    await boot();
  } catch (err) {
    const journals = await Promise.all(['kubelet', 'containerd', 'kube-apiserver'].map(journal));
    throw new Error(journals.join('\n'), { cause: err });
  }
  const azure = opening.use(
    await startAzure(machine.azurePath, {
      identities: identityNames.map(createLabIdentity),
      applications: [federated, ...(options.applications ?? [])],
      entraTls: pki.entraTls,
      api: pki.admin,
      issuer: 'https://kubernetes.default.svc',
    }),
  );
  for (const image of [...nodeSystem.images, ...(options.images ?? [])]) {
    const from = `/opt/images/${basename(image)}`;
    await machine.run(['ctr', '--namespace=k8s.io', 'images', 'import', from], {
      timeoutMs: 180_000,
    });
  }
  await kubectl(['apply', '-f', join(repositoryRoot, 'deploy/crds.yaml')]);
  await kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=60s']);
  await apply(...identities());
  await eventuallyByProcess(() => kubectl(['get', 'serviceaccount', 'default']), readyLimitMs);

  const owned = opening.move();
  return {
    machine,
    azure,
    caPem: pki.caPem,
    kubectl,
    helm: (args, more) => inAzure(nodeSystem.programs.helm, args, more),
    plugin: (args, more) =>
      inAzure(process.execPath, [join(repositoryRoot, 'src/kubectl/main.ts'), ...args], more),
    apply,
    type: (script, folder) =>
      runProcess(
        'nsenter',
        [`--net=${machine.azurePath}`, '--', 'env', `--chdir=${folder}`, 'sh', '-euxc', script],
        {
          env: { ...env, PATH: `${folder}/bin:${programs}:${env.PATH ?? ''}` },
          timeoutMs: typedLimitMs,
        },
      ),
    boot,
    journal,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function configure(
  machine: Machine,
  { cgroupDriver, startupTaint, maxPods, ownLinks = false }: NodeOptions,
): void {
  const read = (file: string): string => readFileSync(join(system, file), 'utf8');
  const units = '/etc/systemd/system';
  const link = (target: string, at: string): void => {
    mkdirSync(dirname(machine.path(at)), { recursive: true });
    symlinkSync(target, machine.path(at));
  };
  for (const unit of readdirSync(join(system, 'units'))) {
    machine.write(`${units}/${unit}`, read(`units/${unit}`));
    link(`../${unit}`, `${units}/multi-user.target.wants/${unit}`);
  }
  for (const unit of maskedUnits) link('/dev/null', `${units}/${unit}`);
  const isSystemd = cgroupDriver === 'systemd';
  machine.write(
    '/etc/containerd/node.toml',
    read('containerd.toml').replace('@SYSTEMD@', String(isSystemd)),
  );
  const taints = [{ key: startupTaint, effect: 'NoSchedule' }];
  const registration =
    startupTaint === undefined ? '' : `registerWithTaints: ${JSON.stringify(taints)}\n`;
  machine.write(
    '/etc/kubernetes/kubelet.yaml',
    read('kubelet.yaml').replace('@DRIVER@', cgroupDriver) +
      registration +
      (maxPods === undefined ? '' : `maxPods: ${maxPods}\n`),
  );
  machine.write('/etc/kubernetes/manifests/.keep', '');
  const network = read('pod-network.conflist');
  machine.write(
    '/etc/cni/net.d/10-pod-network.conflist',
    // Each plugin ignores the other's fields.
    ownLinks ? network.replace('"type": "bridge"', '"type": "ptp"') : network,
  );
  machine.write('/etc/containerd/runsc.toml', read('runsc.toml'));
  for (const name of ['runc-node', 'runsc-node']) {
    machine.write(`/usr/local/bin/${name}`, read('runc-node'), 0o755);
  }
  machine.write('/etc/resolv.conf', '');
  machine.write('/etc/machine-id', '');
}

const apiVersion = 'aadpodidentity.k8s.io/v1';

/** Of the assigned identities and the exception, as agents need it that enforce owners. */
export const grantOfIdentities = {
  apiVersion,
  kind: 'AzureIdentityGrant',
  metadata: { name: 'default' },
  spec: {
    namespaces: ['default'],
    clientIDs: identityNames.map((name) => createLabIdentity(name).clientId),
    nodeIdentities: true,
  },
};

/** An identity and its binding, for pods with its name as their label. */
export function boundIdentity(name: string, spec: object): readonly object[] {
  const metadata = { name, namespace: 'default' };
  return [
    { apiVersion, kind: 'AzureIdentity', metadata, spec },
    {
      apiVersion,
      kind: 'AzureIdentityBinding',
      metadata,
      spec: { azureIdentity: name, selector: name },
    },
  ];
}

export function identities(): readonly object[] {
  const assigned = identityNames.flatMap((name) => {
    const { clientId, resourceId } = createLabIdentity(name);
    return boundIdentity(name, { type: 0, resourceID: resourceId, clientID: clientId });
  });
  return [
    ...assigned,
    ...boundIdentity(federated.name, {
      type: 3,
      tenantID: federated.tenantId,
      clientID: federated.clientId,
      federation: 'pod',
    }),
    {
      apiVersion,
      kind: 'AzurePodIdentityException',
      metadata: { name: 'excepted', namespace: 'default' },
      spec: { podLabels: { excepted: 'yes' } },
    },
  ];
}
