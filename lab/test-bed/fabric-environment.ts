/**
 * The test bed of network namespaces, seen from inside the azure namespace: fakes on the metadata
 * address and on the node's uplink, the agent in the node, each pod in a namespace of its own.
 */
import type { ChildProcess } from 'node:child_process';
import { AgentProcess } from './agent-process.ts';
import { fabricAddresses, type Fabric } from '../fabric/fabric.ts';
import { openFabricPod } from '../pods/pod-client.ts';
import { inCgroup, openLabCgroups } from '../fabric/cgroups.ts';
import { labCommand, type Command } from '../fabric/lab-command.ts';
import { LabError } from '../fabric/lab-error.ts';
import { namespacePath } from '../fabric/namespaces.ts';
import { findCgroupRoot } from '../../src/redirect/cgroup/cgroup-tree.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';
import { openServices } from './services.ts';
import { nodeName, type Environment, type RunResult } from './test-bed.ts';

const kubePort = 6443;
const entraPort = 8443;
const probePort = 8085;
/** Programs of an agent that this machine may have are not the lab's to take away. */
const strangeFolder = '/sys/fs/bpf/nmi-lab';
/** Of the agent, which is a pod on the host network: each start is another container of it. */
const agentUid = 'a9e27000-0000-4000-8000-000000000001';

/**
 * @param redirect how the agent redirects, as its flag takes it.
 * @param agentCommand starts `nmi`.
 */
export async function openFabricEnvironment(
  fabric: Fabric,
  redirect: string,
  agentCommand: Command,
): Promise<Environment & AsyncDisposable> {
  await using opening = new AsyncDisposableStack();
  const { imdsIp, azureIp, nodeIp } = fabricAddresses;
  const services = opening.use(
    await openServices({
      imds: { host: imdsIp, port: 80 },
      host: azureIp,
      kubePort,
      entraPort,
      nodeIp,
    }),
  );
  const needsCgroups = redirect === 'ebpf' || (redirect === 'auto' && hasCgroupTree());
  const cgroups = needsCgroups ? opening.use(openLabCgroups()) : undefined;
  const agentEnvironment = {
    ...services.agentEnvironment,
    ...(cgroups === undefined
      ? { NMI_BPF_PIN_FOLDER: strangeFolder }
      : { NMI_CGROUP_ROOT: cgroups.root, NMI_BPF_PIN_FOLDER: cgroups.pinFolder }),
  };
  const redirectFlags = [`--redirect=${redirect}`];
  const placed = new Map<string, { readonly uid: string; readonly cgroup: string }>();
  /** The network namespace of each pod, by its name. */
  const spaces = new Map<string, string>();
  const [program, ...leading] = agentCommand;
  /** Of its latest start. */
  let agentCgroup: string | undefined;
  const openAgent = (
    adminPort: number,
    through: readonly string[] = [],
    executable = program,
  ): AgentProcess =>
    new AgentProcess({
      adminUrl: `http://${nodeIp}:${adminPort}`,
      spawn: (flags) => {
        const own = [...through, executable, ...leading, ...flags];
        agentCgroup = cgroups?.addPod(agentUid);
        const words = agentCgroup === undefined ? own : inCgroup(agentCgroup, own);
        const [first = program, ...rest] = words;
        return fabric.exec('node', first, rest, {
          env: { ...process.env, ...agentEnvironment },
        });
      },
    });
  const newContainer = (pod: string): { readonly cgroup?: string } => {
    const uid = placed.get(pod)?.uid;
    const cgroup = uid === undefined ? undefined : cgroups?.addPod(uid);
    return cgroup === undefined ? {} : { cgroup };
  };
  const mode =
    redirect === 'auto' ? await askForMode(fabric, agentCommand, agentEnvironment) : redirect;
  const agent = opening.use(openAgent(probePort));
  const owned = opening.move();
  return {
    kind: 'namespaces',
    ...services,
    agent,
    agentCommand,
    agentEnvironment,
    redirectFlags,
    mode,
    agentFlags: [
      ...services.agentFlags,
      // Without a redirect nobody brings up the agent's own address; the node's is there anyway.
      ...(redirect === 'none' ? [`--nmi-listen-address=${nodeIp}`] : []),
      ...[`--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
      ...[`--http-probe-port=${probePort}`, `--prometheus-port=${probePort}`],
      ...['--ipt-update-interval-sec=1', ...redirectFlags],
    ],
    nodeIp,
    openPod: async ({ name, uid, ip, hostNetwork, link = 'bridge' }) => {
      const pod = hostNetwork
        ? undefined
        : await fabric.addPod(name, { link, ...(ip === undefined ? {} : { ip }) });
      const cgroup = cgroups?.addPod(uid);
      if (cgroup !== undefined) placed.set(name, { uid, cgroup });
      const space = hostNetwork ? 'node' : name;
      spaces.set(name, space);
      const client = await openFabricPod({
        fabric,
        space,
        ...(cgroup === undefined ? {} : { cgroup }),
      });
      return { ips: pod?.ips ?? [nodeIp], client };
    },
    closePod: async (name) => {
      await fabric.removePod(name);
      const place = placed.get(name);
      if (place !== undefined) cgroups?.removePod(place.uid);
      placed.delete(name);
      spaces.delete(name);
    },
    movePod: (name, uid) => {
      const place = placed.get(name);
      if (place === undefined) return;
      placed.set(name, { uid, cgroup: cgroups?.movePod(place.cgroup, uid) ?? '' });
    },
    openHostClient: () => openFabricPod({ fabric, space: 'node' }),
    openOutsider: (pod) => openFabricPod({ fabric, space: pod }),
    openAgent,
    podCgroup: (name) => placed.get(name)?.cgroup,
    agentCgroup: () => (agentCgroup ??= cgroups?.addPod(agentUid)),
    runInNode: (command, args, input) =>
      collect(fabric.exec('node', command, args, { stdio: ['pipe', 'pipe', 'pipe'] }), input),
    openInside: async (pod, ip) => {
      const space = await fabric.addInside(pod, ip);
      const rule = ['-t', 'nat', '-A', 'POSTROUTING', '-o', 'eth0', '-j', 'MASQUERADE'];
      const { code, stderr } = await collect(fabric.exec(pod, 'iptables', rule), undefined);
      if (code !== 0) throw new LabError('TOOL_FAILED', `iptables in ${pod}: ${stderr}`);
      return openFabricPod({ fabric, space, ...newContainer(pod) });
    },
    openContainer: (pod, through) => {
      const command = [...through, ...labCommand, 'pod'] as const;
      return openFabricPod({ fabric, space: pod, command, ...newContainer(pod) });
    },
    podNamespace: (pod) => namespacePath(fabric.namespaceOf(pod)),
    startInPod: (pod, words) => {
      const { cgroup } = newContainer(pod);
      const [first, ...rest] = cgroup === undefined ? words : inCgroup(cgroup, words);
      return fabric.exec(pod, first, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
    },
    runInPod: (pod, command, args, input) => {
      const place = placed.get(pod);
      const words = [command, ...args];
      const [first = '', ...rest] = place === undefined ? words : inCgroup(place.cgroup, words);
      const space = spaces.get(pod) ?? pod;
      return collect(fabric.exec(space, first, rest, { stdio: ['pipe', 'pipe', 'pipe'] }), input);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Without one there are no cgroups of pods, and `auto` has nothing to attach to. */
function hasCgroupTree(): boolean {
  try {
    findCgroupRoot();
    return true;
  } catch (error) {
    if (error instanceof RedirectError) return false;
    throw error;
  }
}

/** What `auto` takes on this node, as the product reports it. */
async function askForMode(
  fabric: Fabric,
  [program, ...leading]: Command,
  environment: Readonly<Record<string, string>>,
): Promise<string> {
  const words = [...leading, 'redirect', 'verify'];
  const env = { ...process.env, ...environment };
  const { stdout, stderr } = await collect(fabric.exec('node', program, words, { env }), undefined);
  const mode: unknown = /^(\w+): /.exec(stdout)?.[1];
  if (typeof mode === 'string') return mode;
  throw new LabError('AGENT_FAILED', `nmi redirect verify names no mode: ${stderr}`);
}

function collect(child: ChildProcess, input: string | undefined): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.once('error', reject);
    child.once('close', (code) => {
      resolve({ code: code ?? 1, stdout, stderr });
    });
    // A tool may end without reading its input.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}
