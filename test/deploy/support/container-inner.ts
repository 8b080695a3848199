/**
 * The node lab with the agent started like the DaemonSet: run inside the azure namespace, with the
 * fabric's prefix and a folder with the files of the image. Fails with an exit code.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { AgentProcess } from '../../../lab/test-bed/agent-process.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { attachFabric, fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { openLabCgroups } from '../../../lab/fabric/cgroups.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import { LabPod } from '../../../lab/pods/pod.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../../lab/fakes/kube/manifests.ts';
import { openFabricPod } from '../../../lab/pods/pod-client.ts';
import { openServices } from '../../../lab/test-bed/services.ts';
import { containerCommand, readPodSpec, type Container, type PodSpec } from './container.ts';

const [prefix = '', root = ''] = process.argv.slice(2);
const { imdsIp, azureIp, nodeIp } = fabricAddresses;
const node = 'lab-node';
const fabric = attachFabric(prefix);

await using stack = new AsyncDisposableStack();
const services = stack.use(
  await openServices({
    imds: { host: imdsIp, port: 80 },
    host: azureIp,
    kubePort: 6443,
    entraPort: 8443,
    nodeIp,
  }),
);
const { imds, kube } = services;
const cgroups = stack.use(openLabCgroups());
const bpffs = dirname(cgroups.pinFolder);
const files = mkdtempSync(join(tmpdir(), 'nmi-test-host-'));
mkdirSync(join(files, 'account'));
stack.defer(() => {
  rmSync(files, { recursive: true, force: true });
});
for (const name of ['xtables.lock', 'kubelet']) writeFileSync(join(files, name), '');

const identity = createLabIdentity('checkout');
imds.assign(identity);
const { clientId, resourceId } = identity;
const named = { name: 'checkout', namespace: 'shop' };
kube.apply(createAzureIdentity({ ...named, clientId, resourceId }));
kube.apply(
  createAzureIdentityBinding({ ...named, azureIdentity: 'checkout', selector: 'checkout' }),
);
const pod = stack.use(await openPod());

const manifest = await readPodSpec('nmi.yaml');
const split = await readPodSpec('nmi-split.yaml');
const opening = await readPodSpec('open-nodes.yaml');
const [open] = opening.initContainers ?? [];
const [agentContainer] = manifest.containers;
assert.ok(open !== undefined && agentContainer !== undefined);
const { add = [] } = agentContainer.securityContext.capabilities;

// Nodes have only version 2 of cgroups, or both versions side by side, in a folder of mounts.
const hybrid = openHybrid();
let cgroupFolder = cgroups.root;

// From one to the next as in an upgrade: the node is not opened in between.
await serves({}, /"mode":"ebpf"/);
assert.ok(readdirSync(bpffs).includes('nmi'), 'nothing is pinned');

const withoutBpf = { capabilities: add.filter((name) => name !== 'BPF') };
await serves(withoutBpf, /"mode":"iptables".*bpf\(2\) is not permitted: it takes CAP_BPF/);
assert.ok(!readdirSync(bpffs).includes('nmi'), 'the programs of eBPF are still there');

// A security module that forbids writes there has the same effect inside the container.
const withoutPins = { spec: withReadOnly(manifest, 'bpf') };
await serves(withoutPins, /"mode":"iptables".*nothing can be pinned in \/host\/bpf: EROFS/);

cgroupFolder = hybrid;
await serves({}, /"mode":"ebpf"/);
await servesSplit();
await openNode();

assert.equal(imds.leaks(), 0);
process.stdout.write('held\n');

interface Difference {
  readonly spec?: PodSpec;
  readonly container?: Container;
  readonly capabilities?: readonly string[];
  /** Address and UID of this pod; every other pod has its own. */
  readonly uid?: string;
}

/** The agent starts, reports the expected redirect, and a pod gets the token of its identity. */
async function serves(difference: Difference, says: RegExp): Promise<void> {
  await using agent = openAgent(8085, difference);
  await agent.start([...services.agentFlags, '--log-format=json']);
  const chosen = agent.lines.find((line) => line.includes('redirect chosen')) ?? '';
  assert.match(chosen, says);
  process.stdout.write(`${chosen}\n`);
  await eventually(async () => {
    assert.equal((await pod.ask()).identity, 'checkout');
  });
  const { from } = imds.requests().findLast((each) => each.identity !== undefined) ?? {};
  assert.equal(from, nodeIp);
  imds.clear();
  assert.equal(await agent.stop(), 0, agent.lines.slice(-5).join('\n'));
}

/** Both containers of one pod: neither has the other's mounts, and the server is unprivileged. */
async function servesSplit(): Promise<void> {
  const [serving, kernel] = split.containers;
  // Modes as systemd mounts it, and as the kubelet makes an empty folder of a pod.
  chmodSync(bpffs, 0o700);
  mkdirSync(join(files, 'systemd'));
  mkdirSync(join(files, 'shared'));
  mkdirSync(join(files, 'slots'));
  chmodSync(join(files, 'shared'), 0o777);
  assert.ok(serving !== undefined && kernel !== undefined);
  const uid = randomUUID();
  await using server = openAgent(8085, { spec: split, container: serving, uid });
  await using keeper = openAgent(8086, { spec: split, container: kernel, uid });
  server.launch([...services.agentFlags, '--log-format=json']);
  await keeper.start(['--log-format=json']);
  await server.untilReady();
  assert.match(rightsOf(server.pid), /^Uid:\s65532\s[^]*^CapPrm:\s0+\nCapEff:\s0+$/m);
  assert.match(rightsOf(keeper.pid), /^Uid:\s0\s/m);
  await eventually(async () => {
    assert.equal((await pod.ask()).identity, 'checkout');
  });
  imds.clear();
  // The kernel answers the server who called, also while nobody maintains the redirect.
  await keeper.stop();
  assert.equal((await pod.ask()).identity, 'checkout');
  await keeper.start(['--log-format=json']);
  await eventually(async () => {
    assert.equal((await pod.ask()).identity, 'checkout');
  });
  imds.clear();
  assert.equal(await server.stop(), 0, server.lines.slice(-5).join('\n'));
  assert.equal(await keeper.stop(), 0, keeper.lines.slice(-5).join('\n'));
  assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
}

function rightsOf(pid = 0): string {
  return readFileSync(`/proc/${pid}/status`, 'latin1');
}

function openAgent(port: number, difference: Difference): AgentProcess {
  const { spec = manifest, container = spec.containers[0], capabilities } = difference;
  const { uid = randomUUID() } = difference;
  assert.ok(container !== undefined);
  const { KUBECONFIG = '' } = services.agentEnvironment;
  return new AgentProcess({
    adminUrl: `http://${nodeIp}:${port}`,
    spawn: (flags) => {
      const [program, ...words] = containerCommand({
        spec,
        container,
        root,
        cgroup: cgroups.addPod(uid),
        host: host(),
        shared: [`${dirname(KUBECONFIG)}/`],
        environment: { KUBECONFIG },
        fields: { 'spec.nodeName': node, 'metadata.uid': uid },
        args: flags,
        ...(capabilities === undefined ? {} : { capabilities }),
      });
      return fabric.exec('node', program, words);
    },
  });
}

/** With the manifest for opening nodes; then nothing of the redirect is left. */
async function openNode(): Promise<void> {
  assert.ok(open !== undefined);
  const [program, ...words] = containerCommand({
    spec: opening,
    container: open,
    root,
    host: host(),
    cgroup: cgroups.addPod(randomUUID()),
    environment: {},
    args: [],
  });
  const child = fabric.exec('node', program, words);
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => (printed += text));
  }
  const code = await new Promise((resolve) => child.once('close', resolve));
  assert.equal(code, 0, printed);
  assert.ok(!readdirSync(bpffs).includes('nmi'), printed);
}

function host(): Readonly<Record<string, string>> {
  return {
    '/sys/fs/bpf': `${bpffs}/`,
    '/sys/fs/cgroup': `${cgroupFolder}/`,
    '/run/xtables.lock': join(files, 'xtables.lock'),
    '/etc/default/kubelet': join(files, 'kubelet'),
    '/etc/systemd/system': `${join(files, 'systemd')}/`,
    shared: `${join(files, 'shared')}/`,
    // The agent has a kubeconfig here.
    account: `${join(files, 'account')}/`,
    '/run/nmi-agent': `${join(files, 'slots')}/`,
  };
}

function openHybrid(): string {
  const folder = join(files, 'cgroup');
  mkdirSync(folder);
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
  stack.defer(() => {
    execFileSync('umount', ['--recursive', folder]);
  });
  for (const name of ['memory', 'unified']) mkdirSync(join(folder, name));
  execFileSync('mount', ['--bind', cgroups.root, join(folder, 'unified')]);
  return folder;
}

function withReadOnly(spec: PodSpec, volume: string): PodSpec {
  const containers = spec.containers.map((container) => ({
    ...container,
    volumeMounts: container.volumeMounts.map((mount) =>
      mount.name === volume ? { ...mount, readOnly: true } : mount,
    ),
  }));
  return { ...spec, containers };
}

async function openPod(): Promise<LabPod> {
  const uid = randomUUID();
  const { ip, ips } = await fabric.addPod('checkout');
  const client = await openFabricPod({ fabric, space: 'checkout', cgroup: cgroups.addPod(uid) });
  kube.apply(
    createPodManifest({
      ...named,
      uid,
      nodeName: node,
      ips,
      hostIp: nodeIp,
      hostNetwork: false,
      phase: 'Running',
      serviceAccount: 'default',
      binding: 'checkout',
    }),
  );
  return new LabPod({
    ...named,
    ip,
    uid,
    client,
    onIdentity: () => undefined,
    log: (line) => process.stdout.write(`${line}\n`),
  });
}
