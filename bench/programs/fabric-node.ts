/**
 * A whole node, run from inside the azure namespace of a fabric: fakes here, the agent (or another
 * implementation) and controls in the node, one pod that sends requests. `node
 * bench/programs/fabric-node.ts PLAN` reports when it is ready, then executes one order per line
 * until stdin ends.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { attachFabric, fabricAddresses } from '../../lab/fabric/fabric.ts';
import { inCgroup, openLabCgroups } from '../../lab/fabric/cgroups.ts';
import { openServices } from '../../lab/test-bed/services.ts';
import { onCore } from '../machine/cores.ts';
import { outputOf, stop, untilItSpeaks } from '../machine/child.ts';
import { controlCommand, type ControlName } from '../fixture/controls.ts';
import {
  nodePorts,
  type FabricAnswer,
  type FabricOrder,
  type FabricPlan,
  type FabricReady,
} from '../fixture/fabric-plan.ts';
import { addAskingPod, fillCluster, goalSize, nodeName } from '../fixture/objects.ts';
import { loadCommand, parseReport } from '../fixture/run-load.ts';
import { defaultTarget } from '../fixture/fixture.ts';

const { imdsIp, azureIp, nodeIp } = fabricAddresses;
const plan = JSON.parse(process.argv[2] ?? '{}') as FabricPlan;
const podName = 'ask-0';

await using stack = new AsyncDisposableStack();
const fabric = attachFabric(plan.prefix);
const around = stack.use(
  await openServices({
    imds: { host: imdsIp, port: 80 },
    host: azureIp,
    kubePort: 6443,
    entraPort: 8443,
    nodeIp,
    bookmarkEveryMs: 60_000,
  }),
);
const cgroups = plan.redirect === 'ebpf' ? stack.use(openLabCgroups()) : undefined;
const uid = randomUUID();
const cgroup = cgroups?.addPod(uid);
const { ip } = await fabric.addPod(podName);
const identity = addAskingPod(around.kube, around.imds, { name: podName, ip, uid });
fillCluster(around.kube, { ...goalSize, pods: goalSize.pods - 1 });

const folder = await mkdtemp(join(tmpdir(), 'nmi-bench-'));
stack.defer(() => rm(folder, { recursive: true, force: true }));
// A file, as with a container runtime; no process must read a pipe on the core of the load.
const log = stack.use(await open(join(folder, 'log'), 'a'));
const redirect = plan.isSplit === true ? startInNode(redirectWords(), log.fd) : undefined;
const agent = startInNode(
  plan.rival === undefined ? agentWords() : rivalWords(plan.rival.command),
  log.fd,
);
const target = { host: plan.redirect === 'none' ? nodeIp : imdsIp };
const port = plan.redirect === 'none' ? nodePorts.agent : 80;
const asked = await outputOf(
  runInPod([process.execPath, programPath('ask.ts'), target.host, `${port}`, defaultTarget]),
);
const bodyBytes = Number(asked);
const control = await startControl('node:http', nodePorts.control);
const goControl = await startControl('Go net/http', nodePorts.go);
const ready: FabricReady = {
  agentPid: agent.pid ?? 0,
  redirectPid: redirect?.pid,
  controlPid: control?.pid ?? 0,
  goPid: goControl?.pid,
  identity: identity.name,
  bodyBytes,
};
say(ready);
for await (const line of createInterface({ input: process.stdin })) {
  say(await obey(JSON.parse(line) as FabricOrder));
}

async function obey(order: FabricOrder): Promise<FabricAnswer> {
  if (order.kind === 'probe') {
    startInNode([process.execPath, programPath('probe.ts')]);
    return { kind: 'probed' };
  }
  const words = loadCommand(order.plan);
  const child = order.isOutside ? runOutside(words) : runInPod(words);
  return { kind: 'report', report: parseReport(await outputOf(child)) };
}

function agentWords(): readonly string[] {
  return [
    ...[plan.executable, `--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
    ...(plan.redirect === 'none' ? [`--nmi-listen-address=${nodeIp}`] : []),
    `--redirect=${redirect === undefined ? plan.redirect : 'pinned'}`,
    ...[`--nmi-port=${nodePorts.agent}`, ...around.agentFlags],
    ...[`--http-probe-port=${nodePorts.probe}`, `--prometheus-port=${nodePorts.metrics}`],
    '--allow-network-plugin-kubenet',
    ...plan.agentFlags,
  ];
}

function redirectWords(): readonly string[] {
  return [
    ...['env', `NMI_SLOT_FOLDER=${join(folder, 'slots')}`, plan.executable],
    ...['redirect', 'run', `--redirect=${plan.redirect}`, `--nmi-port=${nodePorts.agent}`],
    `--http-probe-port=${nodePorts.redirectProbe}`,
    `--prometheus-port=${nodePorts.redirectMetrics}`,
  ];
}

/** With the flags of the replaced system's own manifest. */
function rivalWords(command: string): readonly string[] {
  return [
    ...['sh', '-c', `exec ${command} "$@"`, 'sh', `--node=${nodeName}`],
    ...['--operation-mode=managed', '--forceNamespaced', '--metadata-header-required=true'],
    ...[`--http-probe-port=${nodePorts.probe}`, `--prometheus-port=${nodePorts.metrics}`],
    '--allow-network-plugin-kubenet',
  ];
}

/** Undefined if its language is not installed. */
async function startControl(name: ControlName, controlPort: number) {
  const command = controlCommand(name);
  if (command === undefined) return undefined;
  const child = startInNode([...command, nodeIp, `${controlPort}`, `${bodyBytes}`]);
  await untilItSpeaks(child);
  return child;
}

function startInNode(words: readonly string[], stdout: 'pipe' | number = 'pipe') {
  const [program, ...args] = onCore('server', words as [string, ...string[]]);
  const child = fabric.exec('node', program, args, {
    stdio: ['ignore', stdout, plan.rival === undefined ? 'inherit' : 'ignore'],
    env: {
      ...process.env,
      ...around.agentEnvironment,
      ...(cgroups && { NMI_CGROUP_ROOT: cgroups.root, NMI_BPF_PIN_FOLDER: cgroups.pinFolder }),
    },
  });
  child.stdout?.resume();
  stack.defer(() => stop(child));
  return child;
}

function runInPod(words: readonly [string, ...string[]]) {
  return runOutside(cgroup === undefined ? words : inCgroup(cgroup, words));
}

function runOutside([program, ...args]: readonly [string, ...string[]]) {
  return fabric.exec(podName, program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
}

function programPath(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

function say(line: FabricReady | FabricAnswer): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
