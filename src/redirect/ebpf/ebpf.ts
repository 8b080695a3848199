/**
 * The eBPF mode: the programs rewrite a pod's connect to the metadata address within the system call
 * and record the caller's cgroup, so that the agent identifies the caller independently of the source
 * address. Needs Linux 5.10 and pods in the cgroup v2 tree.
 *
 * The iptables redirect is the fallback. It sees only connections that bypass the programs: those
 * older than the programs, which are cut, and packets from raw sockets, which the agent refuses
 * because they have no record. Neither leaves the node. A node without iptables has the guard only, which
 * rejects such packets with an ICMP error instead of dropping them.
 *
 * Everything is pinned: programs, maps and links outlive the process, and the next process takes over.
 */
import { collectErrors } from '../host/collect-errors.ts';
import { createMutex } from '../host/mutex.ts';
import {
  ancestorIds,
  cgroupIdOf,
  findCgroupRoot,
  findPodsRoot,
  ownCgroupPath,
  podCgroupPath,
  qosClassPaths,
} from '../cgroup/cgroup-tree.ts';
import { createHost, type Host } from '../host/command.ts';
import { defaultPinFolder, ensurePinFolder } from './pins.ts';
import {
  changeNodePods,
  cutOlderSockets,
  diffPrograms,
  joinPinned,
  installPrograms,
  readCounters,
  readListenPort,
  unpinPrograms,
  type ProgramCounters,
  type WantedPrograms,
} from './programs.ts';
import { settingsOf } from './settings.ts';
import { ensureLink } from '../host/link.ts';
import { inKernel } from '../native/addon.ts';
import { readPrograms } from '../native/native-files.ts';
import {
  RedirectError,
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from '../redirect.ts';
import { defaultTarget, describeTarget, portsOf, reachableTarget } from '../target.ts';

export interface EbpfRedirectOptions {
  /** Default: the metadata address, redirected to 169.254.25.79:2579. */
  readonly target?: RedirectTarget;
  /** Mount point of the cgroup v2 tree, or a folder above it. Empty, the default: found in mountinfo. */
  readonly cgroupRoot?: string;
  /** The cgroup to redirect, with its descendants. Default: the cgroup of all pods in `cgroupRoot`. */
  readonly attachTo?: string;
  /** Folder of all pins. Default `/sys/fs/bpf/nmi`. */
  readonly pinFolder?: string;
  /** UID of the agent's pod: all of its containers reach the real endpoint. */
  readonly ownPodUid?: string;
  /** Path of the agent's cgroup. Default: that of its pod, or of this process. */
  readonly ownCgroup?: string;
  /** Cgroups of the node's other agents, which an update starts or ends: they reach the real endpoint, too. */
  readonly otherAgents?: () => readonly bigint[];
  /** The redirect for connections that bypass the programs, for the same target. */
  readonly fallback: Redirect;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
  /** SO_NETNS_COOKIE of the network namespace of `host`. Default: read from the kernel. */
  readonly netnsCookie?: bigint;
}

/** A redirect that records callers, and counts. */
export interface EbpfRedirect extends Redirect {
  readonly mode: 'ebpf';
  /**
   * Lets the pods with these cgroups, and no others, reach the metadata address itself if they are on the
   * host network.
   * @throws RedirectError
   */
  letThrough(cgroupIds: readonly bigint[]): Promise<void>;
  /** Undefined while no programs are installed. @throws RedirectError */
  counters(): ProgramCounters | undefined;
}

/** The options with their defaults. */
type Settings = EbpfRedirectOptions &
  Required<Pick<EbpfRedirectOptions, 'target' | 'pinFolder' | 'host'>> & {
    /** Set by `letThrough`. */
    nodePods: readonly bigint[] | undefined;
  };

/**
 * The eBPF mode. Its operations are serialized. Each throws RedirectError when the kernel or a tool
 * refuses, never for a state that `verify` can describe.
 * @throws RangeError for a target that is not IPv4.
 */
export function openEbpfRedirect(options: EbpfRedirectOptions): EbpfRedirect {
  const settings: Settings = {
    pinFolder: defaultPinFolder,
    host: createHost(),
    ...options,
    target: reachableTarget(options.target ?? defaultTarget),
    nodePods: undefined,
  };
  const serialize = createMutex();
  return {
    mode: 'ebpf',
    prepare: () =>
      serialize(async () => {
        await ensureLink(settings.host, settings.target.listenIp);
        joinEarlier(settings);
      }),
    install: (port) => serialize(() => install(settings, port)),
    verify: () => serialize(() => readBack(settings)),
    isFrontWhole: (port) =>
      serialize(async () => {
        if (port !== undefined && port !== installedPort(settings)) return false;
        const wanted = wantedPrograms(settings);
        const found = typeof wanted === 'string' ? [wanted] : diffPrograms(wanted);
        return found.length === 0 && settings.host.isLocal(settings.target.listenIp);
      }),
    remove: () => serialize(() => remove(settings)),
    letThrough: (cgroupIds) =>
      serialize(async () => {
        const before = new Set(settings.nodePods);
        const isSame = before.size === cgroupIds.length && cgroupIds.every((id) => before.has(id));
        if (isSame && settings.nodePods !== undefined) return;
        settings.nodePods = cgroupIds;
        const wanted = wantedPrograms(settings);
        if (typeof wanted !== 'string') changeNodePods(wanted, settings.target);
      }),
    counters: () => readCounters(settings.pinFolder),
  };
}

/**
 * Pinned programs of an earlier process exempt and answer its cgroup and not this one's: the agent's calls to the
 * real service would return to the agent, and callers would be unknown. So this runs before the first call.
 */
function joinEarlier(settings: Settings): void {
  try {
    const wanted = wantedPrograms(settings);
    if (typeof wanted !== 'string') joinPinned(wanted);
  } catch (error) {
    // The first check finds and reports the same error.
    if (!(error instanceof RedirectError)) throw error;
  }
}

async function install(settings: Settings, port: number | undefined): Promise<RedirectStatus> {
  const { host, target } = settings;
  const changed: string[] = [];
  const notes: string[] = [];
  const errors = collectErrors();
  await errors.run(async () => changed.push(...(await ensureLink(host, target.listenIp))));
  await errors.run(async () => {
    const wanted = wantedPrograms(settings, port);
    if (typeof wanted === 'string') return;
    ensurePinFolder(settings.pinFolder);
    const problems = diffPrograms(wanted);
    if (problems === 'absent' || problems.length > 0) changed.push(...installPrograms(wanted));
    const closed = closeOlderSockets(wanted, target);
    if (typeof closed === 'string') notes.push(closed);
    else if (closed > 0) changed.push(`${closed} older sockets closed`);
  });
  await errors.run(async () => {
    const behind = await settings.fallback.install(port ?? installedPort(settings));
    changed.push(...(behind.changed ?? []));
  });
  errors.throwFirst();
  const status = await readBack(settings);
  return { ...status, detail: [status.detail, ...notes].join('; '), changed };
}

/** Number of closed sockets, or why none could be closed: a kernel may lack socket diagnosis. */
function closeOlderSockets(programs: WantedPrograms, target: RedirectTarget): number | string {
  try {
    return cutOlderSockets(programs, target);
  } catch (error) {
    if (!(error instanceof RedirectError) || error.code !== 'UNSUPPORTED') throw error;
    return `older sockets not closed: ${error.message}`;
  }
}

async function remove(settings: Settings): Promise<void> {
  const errors = collectErrors();
  // No mutation: this part ends before it returns its promise.
  await errors.run(async () => unpinPrograms(settings.pinFolder));
  await errors.run(() => settings.fallback.remove());
  errors.throwFirst();
}

async function readBack(settings: Settings): Promise<RedirectStatus> {
  const { target } = settings;
  const wanted = wantedPrograms(settings);
  const found = typeof wanted === 'string' ? [wanted] : diffPrograms(wanted);
  const fallback = await settings.fallback.verify();
  const where = typeof wanted === 'string' ? 'no cgroup' : wanted.cgroup.path;
  const port = installedPort(settings);
  const detail = [
    `eBPF on ${where}`,
    describeTarget(target, port),
    `behind it ${fallback.detail}`,
  ].join('; ');
  const isElsewhere = fallback.port !== undefined && port !== undefined && fallback.port !== port;
  const problems = [
    ...(found === 'absent' ? ['no programs installed'] : found),
    ...fallback.problems,
    ...(isElsewhere ? [`iptables leads to port ${fallback.port}`] : []),
  ];
  if (problems.length === 0) return { state: 'active', detail, problems, port };
  return { state: found === 'absent' ? 'absent' : 'broken', detail, problems, port };
}

/** The port of an agent that the installed programs redirect to. */
function installedPort({ pinFolder, target }: Settings): number | undefined {
  const port = readListenPort(pinFolder);
  return portsOf(target).find((each) => each === port);
}

/**
 * The wanted state, or why there can be none.
 * @param port of the agent that gets the connections; default: the one that gets them now, or the first.
 */
function wantedPrograms(settings: Settings, port?: number): WantedPrograms | string {
  const cgroupRoot = findCgroupRoot(settings.cgroupRoot);
  const path = settings.attachTo ?? findPodsRoot(cgroupRoot);
  if (path === undefined) return `no cgroup of pods below ${cgroupRoot}`;
  const id = cgroupIdOf(path);
  if (id === undefined) return `no cgroup ${path}`;
  const agent = agentCgroup(settings, path);
  if (typeof agent === 'string') return agent;
  const object = readPrograms();
  const node = {
    podsRoot: id,
    qosClasses: qosClassPaths(path)
      .map(cgroupIdOf)
      .filter((each) => each !== undefined),
    netnsCookie: settings.netnsCookie ?? inKernel((native) => native.netnsCookie()),
  };
  return {
    pinFolder: settings.pinFolder,
    object,
    settings: settingsOf(
      object,
      settings.target,
      port ?? installedPort(settings) ?? settings.target.listenPort,
      node,
    ),
    cgroup: { path, id },
    agent,
    exempt: wantedExempt(settings, agent.id, [id, ...ancestorIds(path)]),
    nodePods: settings.nodePods,
  };
}

/**
 * The cgroup of the agent's pod, since its containers may restart, and another of them may maintain the
 * redirect; without a known pod, the agent's own cgroup. Or why it is unknown.
 */
function agentCgroup(
  { ownCgroup, ownPodUid }: Settings,
  podsRoot: string,
): WantedPrograms['agent'] | string {
  const path =
    ownCgroup ?? (ownPodUid === undefined ? ownCgroupPath() : podCgroupPath(podsRoot, ownPodUid));
  const id = path === undefined ? undefined : cgroupIdOf(path);
  if (path !== undefined && id !== undefined) return { path, id };
  return ownPodUid === undefined
    ? "the agent's own cgroup is in no mounted part of the tree"
    : `the agent's pod ${ownPodUid} has no cgroup below ${podsRoot}`;
}

/**
 * The cgroups to exempt: the agent's, since calls to the real endpoint must not return to it. Not the
 * redirected cgroup or one above it: an agent there is not redirected, and exempting it would exempt every pod.
 */
function wantedExempt(
  { otherAgents }: Settings,
  agentId: bigint,
  above: readonly bigint[],
): readonly bigint[] {
  const ids = new Set([agentId, ...(otherAgents?.() ?? [])]);
  return [...ids].filter((id) => !above.includes(id));
}
