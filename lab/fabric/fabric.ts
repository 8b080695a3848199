/**
 * One machine as a whole Azure node, made of network namespaces:
 *
 *   azure  169.254.169.254/32 on lo; 10.224.0.1      the fakes, and the lab's main process
 *     │ veth
 *   node   10.224.0.4; bridge cni0 10.244.0.1        the agent; forwards
 *     │ one veth a pod, a port of the bridge or a link of its own
 *   pods   10.244.0.2 …                              callers, default route through the node
 *
 * azure has a route back to the pods, so a request that nothing intercepts reaches the fake IMDS
 * with the pod's own source address: a leak is visible. The owner's own namespace is not changed:
 * links are created inside one lab namespace with the peer in another.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { isFabricPrefix, renderFabricPrefix, renderNamespaceName } from './names.ts';
import { runIpBatch } from './ip-tool.ts';
import { LabError } from './lab-error.ts';
import { linkAlone, linkInside, linkName, linkToBridge, type PodLinkKind } from './pod-link.ts';
import {
  hasNamespace,
  killProcesses,
  listFabricNamespaces,
  namespacePath,
  removeNamespaces,
  sweepDeadFabrics,
} from './namespaces.ts';

/** Equal in every fabric: namespaces do not see each other. */
export const fabricAddresses = {
  imdsIp: '169.254.169.254',
  azureIp: '10.224.0.1',
  nodeIp: '10.224.0.4',
  podGatewayIp: '10.244.0.1',
  podCidr: '10.244.0.0/24',
} as const;

const azureIpv6 = 'fd10:224::1';
const nodeIpv6 = 'fd10:224::4';
const podGatewayIpv6 = 'fd10:244::1';
const podCidrIpv6 = 'fd10:244::/64';
/**
 * Set explicitly, as CNI plugins do: a bridge without a MAC takes the lowest one of its ports, so a
 * pod that is added or removed may change it, and the other pods send to the old one until they
 * resolve it again, 10s or more.
 */
export const gatewayMac = '0a:58:0a:f4:00:01';
/** Of the first container, as Docker chooses it. */
const insideIp = '172.17.0.2';
const podIpBase = '10.244.0.';
const podIpPattern = /^10\.244\.0\.(\d{1,3})$/;
const firstPodHost = 2;
const lastPodHost = 254;

export interface FabricPod {
  readonly name: string;
  readonly ip: string;
  /** Undefined where the kernel has no IPv6. */
  readonly ipv6: string | undefined;
  /** IPv4 first, as a dual-stack kubelet writes `status.podIPs`. */
  readonly ips: readonly string[];
}

export interface ExecOptions {
  /** Default: stdin closed, stdout and stderr piped. */
  readonly stdio?: StdioOptions;
  /** The whole environment; default: ours. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

export interface AddPodOptions {
  readonly ip?: string;
  /** Default `bridge`. A pod with a link of its own has no IPv6. */
  readonly link?: PodLinkKind;
}

export interface Fabric {
  /** Argument of {@link attachFabric} in another process. */
  readonly prefix: string;
  /** The name of a space's namespace, for `ip netns exec` by hand. */
  namespaceOf(space: string): string;
  /**
   * A pod's namespace with its link and addresses. The MAC address is derived from the IPv4
   * address, as in the CNI bridge plugin: no neighbor entry is stale when an address is reused.
   * @throws LabError `NAME_REFUSED`, `ADDRESS_TAKEN`, `TOOL_FAILED`.
   */
  addPod(name: string, options?: AddPodOptions): Promise<FabricPod>;
  /**
   * A network inside a pod's own, whose addresses the pod translates to its own; removed with the
   * pod. Returns its space.
   * @throws LabError `NAME_REFUSED`, `TOOL_FAILED`.
   */
  addInside(pod: string, ip?: string): Promise<string>;
  /** Kills the pod's processes and deletes it. No error if there is no such pod. */
  removePod(name: string): Promise<void>;
  /** The pods that this object added, in order. */
  pods(): readonly FabricPod[];
  /**
   * Starts a program in `azure`, `node` or a pod; the child's pid is the program's own. It leads
   * its own session (Ctrl-C at the terminal does not reach it), and the kernel kills it when we
   * die. Starting never throws; a program that does not exist exits with 127.
   */
  exec(
    space: string,
    command: string,
    args: readonly string[],
    options?: ExecOptions,
  ): ChildProcess;
}

export interface OwnedFabric extends Fabric, AsyncDisposable {
  /** Kills every process in the fabric's namespaces and deletes them. Idempotent. */
  close(): Promise<void>;
}

/** Why no fabric can be created here, or undefined. For skip reasons and fallback to loopback. */
export function findFabricObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  for (const tool of ['ip', 'nsenter', 'setpriv']) {
    if (!isOnPath(tool)) return `${tool} is not installed`;
  }
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  const bits = BigInt(`0x${effective?.[1] ?? '0'}`);
  const netAdmin = 12n;
  const sysAdmin = 21n;
  if (((bits >> netAdmin) & 1n) === 0n) return 'network namespaces need CAP_NET_ADMIN';
  if (((bits >> sysAdmin) & 1n) === 0n) return 'network namespaces need CAP_SYS_ADMIN';
  return undefined;
}

function isOnPath(tool: string): boolean {
  const path = process.env['PATH'] ?? '';
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Makes the azure and node namespaces, after it removes the leftovers of dead labs. This process
 * owns them: they are removed by `close`, and also when it exits by an uncaught error. If it is
 * killed by SIGKILL, the kernel ends the processes in them and the next lab removes the rest.
 * @throws LabError; nothing is left behind then.
 */
export async function openFabric(options: { readonly name?: string } = {}): Promise<OwnedFabric> {
  sweepDeadFabrics();
  const prefix = renderFabricPrefix(process.pid, options.name);
  if (listFabricNamespaces(prefix).length > 0) {
    throw new LabError('NAME_REFUSED', `${prefix} is already open in this process`);
  }
  const remove = (): void => {
    removeNamespaces(listFabricNamespaces(prefix));
  };
  process.once('exit', remove);
  const close = (): Promise<void> => {
    // Twice, for anything that appeared during the first pass; the second usually finds nothing.
    remove();
    remove();
    process.off('exit', remove);
    return Promise.resolve();
  };
  try {
    await layFabric(prefix);
  } catch (error) {
    await close();
    throw error;
  }
  return { ...attachFabric(prefix), close, [Symbol.asyncDispose]: close };
}

/**
 * A fabric that another process owns, to add pods and run programs. The owner removes everything
 * that is made through it.
 * @throws LabError `NAMESPACE_WRONG` when it is not up.
 */
export function attachFabric(prefix: string): Fabric {
  const wanted = ['azure', 'node'].map((space) => renderNamespaceName(prefix, space));
  if (!isFabricPrefix(prefix) || !wanted.every(hasNamespace)) {
    throw new LabError('NAMESPACE_WRONG', `no fabric is called ${prefix}`);
  }
  return createFabric(prefix, hasIpv6());
}

/**
 * Call it only after a bridge was made: where ipv6 is a module, making a bridge loads it. A fabric
 * that called this both before and after would have only half of its addresses.
 */
function hasIpv6(): boolean {
  return existsSync('/proc/net/if_inet6');
}

async function layFabric(prefix: string): Promise<void> {
  const azure = renderNamespaceName(prefix, 'azure');
  const node = renderNamespaceName(prefix, 'node');
  const { imdsIp, azureIp, nodeIp, podGatewayIp, podCidr } = fabricAddresses;
  await runIpBatch([`netns add ${azure}`, `netns add ${node}`], undefined);
  await runIpBatch([`link add cni0 address ${gatewayMac} type bridge`], node);
  const withIpv6 = hasIpv6();
  // `nodad`: while duplicate detection keeps an address tentative, binds fail for a second.
  const ifIpv6 = (...lines: readonly string[]): readonly string[] => (withIpv6 ? lines : []);
  await runIpBatch(
    [
      'link set lo up',
      `address add ${imdsIp}/32 dev lo`,
      `link add node type veth peer name eth0 netns ${node}`,
      `address add ${azureIp}/24 dev node`,
      ...ifIpv6(`address add ${azureIpv6}/64 dev node nodad`),
      'link set node up',
      `route add ${podCidr} via ${nodeIp}`,
    ],
    azure,
  );
  await runIpBatch(
    [
      'link set lo up',
      `address add ${nodeIp}/24 dev eth0`,
      ...ifIpv6(`address add ${nodeIpv6}/64 dev eth0 nodad`),
      'link set eth0 up',
      `route add default via ${azureIp}`,
      `address add ${podGatewayIp}/24 dev cni0`,
      ...ifIpv6(`address add ${podGatewayIpv6}/64 dev cni0 nodad`),
      'link set cni0 up',
      ...ifIpv6(`route add default via ${azureIpv6}`),
    ],
    node,
  );
  if (withIpv6) await runIpBatch([`route add ${podCidrIpv6} via ${nodeIpv6}`], azure);
  await enableForwarding(node, withIpv6);
}

/** /proc/sys/net depends on the namespace of the opening process, so write from inside. */
async function enableForwarding(namespace: string, withIpv6: boolean): Promise<void> {
  const folder = '/proc/sys/net';
  const script = [
    `echo 1 > ${folder}/ipv4/ip_forward`,
    ...(withIpv6 ? [`echo 1 > ${folder}/ipv6/conf/all/forwarding`] : []),
  ].join(' && ');
  const child = spawnInside(namespace, 'sh', ['-c', script], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let printed = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (printed += text));
  const status = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once('error', (cause) => {
      reject(new LabError('TOOL_MISSING', `nsenter: ${cause.message}`, cause));
    });
    child.once('close', (code, signal) => {
      resolve(code ?? signal);
    });
  });
  if (status === 0) return;
  throw new LabError('TOOL_FAILED', `ip_forward: ${printed.trim()} (${String(status)})`);
}

/**
 * nsenter rather than `ip netns exec`: `ip netns exec` mounts a new sysfs over /sys, and the lab's
 * programs need the control groups and the BPF file system below it.
 */
function spawnInside(
  namespace: string,
  command: string,
  args: readonly string[],
  options: ExecOptions,
): ChildProcess {
  const enter = [`--net=${namespacePath(namespace)}`, '--'];
  const tie = ['setpriv', '--pdeathsig', 'KILL', '--'];
  return spawn('nsenter', [...enter, ...tie, command, ...args], {
    stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
    detached: true,
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
}

function createFabric(prefix: string, withIpv6: boolean): Fabric {
  const node = renderNamespaceName(prefix, 'node');
  const pods = new Map<string, FabricPod>();

  const addPod = async (name: string, options: AddPodOptions = {}): Promise<FabricPod> => {
    const namespace = renderNamespaceName(prefix, name);
    if (name === 'azure' || name === 'node' || pods.has(name)) {
      throw new LabError('NAME_REFUSED', `"${name}" is taken`);
    }
    const host = choosePodHost(pods, options.ip);
    const link = options.link ?? 'bridge';
    const pod = createPod(name, host, withIpv6 && link === 'bridge');
    pods.set(name, pod);
    try {
      await runIpBatch([`netns add ${namespace}`], undefined);
      const mac = `0a:58:0a:f4:00:${host.toString(16).padStart(2, '0')}`;
      const linked = { ...pod, namespace, mac };
      const gateway = { ip: fabricAddresses.podGatewayIp, ipv6: podGatewayIpv6 };
      await (link === 'own' ? linkAlone(node, linked) : linkToBridge(node, linked, gateway));
    } catch (error) {
      pods.delete(name);
      removeNamespaces([namespace]);
      throw error;
    }
    return pod;
  };

  const removePod = async (name: string): Promise<void> => {
    if (!pods.has(name)) return;
    const namespace = renderNamespaceName(prefix, name);
    const inside = renderNamespaceName(prefix, insideOf(name));
    const namespaces = hasNamespace(inside) ? [inside, namespace] : [namespace];
    killProcesses(namespaces);
    // The kernel takes a dead namespace's links down later, from a work queue. Deleting the link
    // first frees the address at once.
    await runIpBatch([`link delete ${linkName(name)}`], node);
    removeNamespaces(namespaces);
    pods.delete(name);
  };

  const addInside = async (pod: string, ip = insideIp): Promise<string> => {
    const space = insideOf(pod);
    const outer = renderNamespaceName(prefix, pod);
    await linkInside(outer, renderNamespaceName(prefix, space), ip);
    await enableForwarding(outer, false);
    return space;
  };

  return {
    prefix,
    namespaceOf: (space) => renderNamespaceName(prefix, space),
    addPod,
    addInside,
    removePod,
    pods: () => [...pods.values()],
    exec: (space, command, args, options = {}) =>
      spawnInside(renderNamespaceName(prefix, space), command, args, options),
  };
}

function choosePodHost(pods: ReadonlyMap<string, FabricPod>, wanted: string | undefined): number {
  const taken = new Set([...pods.values()].map((pod) => pod.ip));
  if (wanted !== undefined) {
    const host = Number(podIpPattern.exec(wanted)?.[1]);
    if (!(host >= firstPodHost && host <= lastPodHost) || taken.has(wanted)) {
      throw new LabError('ADDRESS_TAKEN', `${wanted} cannot be a pod's address`);
    }
    return host;
  }
  for (let host = firstPodHost; host <= lastPodHost; host += 1) {
    if (!taken.has(`${podIpBase}${String(host)}`)) return host;
  }
  throw new LabError('ADDRESS_TAKEN', 'every pod address is in use');
}

function createPod(name: string, host: number, withIpv6: boolean): FabricPod {
  const ip = `${podIpBase}${String(host)}`;
  const ipv6 = withIpv6 ? `fd10:244::${host.toString(16)}` : undefined;
  return { name, ip, ipv6, ips: ipv6 === undefined ? [ip] : [ip, ipv6] };
}

/** The space of the network inside a pod's own. */
function insideOf(pod: string): string {
  return `${pod}.inside`;
}
