/**
 * The redirect by eBPF: connects of pods to the metadata address are rewritten in the system call
 * itself and written down with the caller's cgroup, so that the agent knows who asks whatever
 * source address the packets carry. Needs Linux 5.10 and pods in the cgroup2 tree.
 *
 * Behind it stands the redirect by netfilter. With the programs in place it meets only what they
 * could not see: connections older than they are, and packets made by hand. The former are cut as
 * always, the latter reach an agent that has no record of them and says so; neither gets further
 * than the node, and its counter tells how many there were. A node without iptables has at least the
 * guard. Nobody gets a token through it, but nobody waits for an answer to a dropped packet either.
 *
 * Everything is pinned: programs, maps and links outlive the process, and a later one takes over.
 */
import { collectErrors, createMutex } from '../host/attempts.ts';
import { Callers } from './callers.ts';
import {
  ancestorIds,
  cgroupIdOf,
  findPodsRoot,
  listPodCgroups,
  ownCgroupId,
  qosClassIds,
  resolveCgroupRoot,
} from '../cgroup/cgroup-tree.ts';
import { createHost, type Host } from '../host/command.ts';
import { DEFAULT_PIN_FOLDER, ensurePinFolder } from './pins.ts';
import {
  cutOlderSockets,
  diffPrograms,
  exemptFromPinned,
  installPrograms,
  readCounters,
  removePrograms,
  type ProgramCounters,
  type WantedPrograms,
} from './programs.ts';
import { settingsOf } from './settings.ts';
import { diffGuard, ensureGuard, removeGuard } from '../host/guard.ts';
import { describeLink, diffLink, ensureLink, listLinks, removeLink } from '../host/link.ts';
import { inKernel } from '../native/addon.ts';
import { readPrograms } from '../native/native-files.ts';
import type { CutOutcome } from '../host/flows.ts';
import {
  isUnavailable,
  RedirectError,
  type Attestation,
  type Peer,
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from '../redirect.ts';
import { DEFAULT_TARGET, describeTarget, reachableTarget } from '../target.ts';

export interface EbpfRedirectOptions {
  /** Default: the metadata address, brought to 169.254.25.79:2579. */
  readonly target?: RedirectTarget;
  /** The folder of the cgroup2 tree that pods are looked for in, or one above. Default: where it is mounted. */
  readonly cgroupRoot?: string;
  /** The cgroup to redirect, with all below. Default: that of all pods in `cgroupRoot`. */
  readonly attachTo?: string;
  /** Where everything is pinned. Default `/sys/fs/bpf/nmi`. */
  readonly pinFolder?: string;
  /** UID of the pod that the agent is: all of its containers reach the real endpoint. */
  readonly ownPodUid?: string;
  /** More cgroups that reach the real endpoint. The agent's own always does. */
  readonly exemptCgroupIds?: readonly bigint[];
  /** What stands behind the programs, for the same target. */
  readonly behind: Behind;
  /** Whether policy routing closes a node where `behind` cannot work. Default true. */
  readonly guard?: boolean;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
  /** Of the network namespace of `host`, as SO_NETNS_COOKIE gives it. Default: as `host`. */
  readonly netnsCookie?: bigint;
}

/** Attests, and counts what its programs did. */
export interface EbpfRedirect extends Redirect {
  readonly mode: 'ebpf';
  attest(peer: Peer): Attestation;
  /** Undefined while no programs are installed. @throws RedirectError */
  counters(): ProgramCounters | undefined;
  /**
   * Connections that came to the metadata address without having been redirected, and were caught by
   * what stands behind. Undefined where that is not there.
   * @throws RedirectError
   */
  countCaught(): Promise<number | undefined>;
}

/** What stands behind the programs. */
export interface Behind extends Redirect {
  /**
   * Connections that its rule has brought since it was made; undefined without such a rule.
   * @throws RedirectError
   */
  countBrought(): Promise<number | undefined>;
  /**
   * Cuts all connections to the metadata address but the node's own, those it brought included.
   * @throws RedirectError
   */
  cutFlows(): Promise<CutOutcome>;
}

interface Settings {
  readonly target: RedirectTarget;
  readonly cgroupRoot: string | undefined;
  readonly attachTo: string | undefined;
  readonly pinFolder: string;
  readonly ownPodUid: string | undefined;
  readonly exemptCgroupIds: readonly bigint[];
  readonly behind: Behind;
  readonly guard: boolean;
  readonly host: Host;
  readonly netnsCookie: bigint | undefined;
  /** For mounts: the host above may be in another mount namespace. */
  readonly machine: Host;
}

/**
 * The eBPF mode. Its operations run one after the other, however they are called; each throws
 * RedirectError when the kernel or a tool refuses, never for a state that `verify` can describe.
 * @throws RangeError for a target that is not IPv4.
 */
export function openEbpfRedirect(options: EbpfRedirectOptions): EbpfRedirect {
  const machine = createHost();
  const settings: Settings = {
    target: reachableTarget(options.target ?? DEFAULT_TARGET),
    cgroupRoot: options.cgroupRoot,
    attachTo: options.attachTo,
    pinFolder: options.pinFolder ?? DEFAULT_PIN_FOLDER,
    ownPodUid: options.ownPodUid,
    exemptCgroupIds: options.exemptCgroupIds ?? [],
    behind: rememberRefusal(options.behind),
    guard: options.guard ?? true,
    host: options.host ?? machine,
    netnsCookie: options.netnsCookie,
    machine,
  };
  const inTurn = createMutex();
  const callers = new Callers(settings.pinFolder, settings.target);
  return {
    mode: 'ebpf',
    prepare: () =>
      inTurn(async () => {
        await ensureLink(settings.host, settings.target.listenIp);
        exemptSelf(settings);
        // Where the programs of an earlier process stand, callers come as soon as somebody listens.
        refresh(callers);
      }),
    install: () =>
      inTurn(async () => {
        const status = await install(settings, () => refresh(callers));
        refresh(callers);
        return status;
      }),
    verify: () =>
      inTurn(async () => {
        refresh(callers);
        return readBack(settings);
      }),
    remove: () =>
      inTurn(async () => {
        callers.close();
        await remove(settings);
      }),
    attest: (peer) => callers.attest(peer),
    whyUnavailable: () => callers.whyUnavailable(),
    counters: () => readCounters(settings.pinFolder),
    countCaught: async () => {
      const caught = await orUnavailable(settings.behind.countBrought());
      return caught.kind === 'status' ? caught.status : undefined;
    },
  };
}

/**
 * That rules can be read and not written shows in an installation only. What it met holds until the
 * next one: a chain that cannot be made is no damage to be repaired.
 */
function rememberRefusal(behind: Behind): Behind {
  let refusal: Error | undefined;
  return {
    ...behind,
    install: async () => {
      try {
        const status = await behind.install();
        refusal = undefined;
        return status;
      } catch (error) {
        refusal = isUnavailable(error) ? error : undefined;
        throw error;
      }
    },
    verify: async () => {
      if (refusal !== undefined) throw refusal;
      return behind.verify();
    },
  };
}

/**
 * Where the programs of an earlier process stand, they know its cgroup and not this one's: a call of
 * the agent to the real service would come back to the agent. Before anything dials.
 */
function exemptSelf(settings: Settings): void {
  try {
    const wanted = wantedPrograms(settings);
    if (wanted.kind === 'programs') exemptFromPinned(wanted.programs);
  } catch (error) {
    // What is wrong with them is found again, and told, by the first check.
    if (!(error instanceof RedirectError)) throw error;
  }
}

/** Without programs there is nothing to open; the status says that they are missing. */
function refresh(callers: Callers): void {
  try {
    callers.refresh();
  } catch {
    callers.close();
  }
}

/** @param onPrograms the programs stand: from now on there are callers to be looked up. */
async function install(settings: Settings, onPrograms: () => void): Promise<RedirectStatus> {
  const { host, target } = settings;
  const changed: string[] = [];
  const notes: string[] = [];
  const attempts = collectErrors();
  await attempts.run(async () => changed.push(...(await ensureLink(host, target.listenIp))));
  await attempts.run(async () => {
    const wanted = wantedPrograms(settings);
    if (wanted.kind === 'impossible') return;
    await ensurePinFolder(settings.machine, settings.pinFolder);
    const problems = diffPrograms(wanted.programs);
    if (problems === 'absent' || problems.length > 0) {
      changed.push(...installPrograms(wanted.programs));
    }
    onPrograms();
    const closed = closeOlderSockets(wanted.programs);
    if (typeof closed === 'string') notes.push(closed);
    else if (closed > 0) changed.push(`${closed} older sockets closed`);
  });
  await attempts.run(async () => {
    const behind = await orUnavailable(settings.behind.install());
    if (behind.kind === 'status') changed.push(...(behind.status.changed ?? []));
    else if (settings.guard) changed.push(...(await ensureGuard(host, target.metadataIp)));
  });
  await attempts.run(async () => changed.push(...(await cutBrought(settings))));
  attempts.throwFirst();
  const status = await readBack(settings);
  return { ...status, detail: [status.detail, ...notes].join('; '), changed };
}

/**
 * What netfilter brought to the agent has, towards it, the port of its client. Until the tracking
 * forgets it (two minutes after its end), a client that dials from the same port through the programs
 * is given another one on the way, and that one is on no record.
 */
async function cutBrought({ behind }: Settings): Promise<readonly string[]> {
  const outcome = await orUnavailable(behind.cutFlows());
  if (outcome.kind === 'unavailable' || outcome.status.kind !== 'cut') return [];
  const { flows } = outcome.status;
  return flows > 0 ? [`${flows} flows forgotten that iptables brought`] : [];
}

/** How many, or why none could be: a kernel may be built without the means. */
function closeOlderSockets(programs: WantedPrograms): number | string {
  try {
    return cutOlderSockets(programs);
  } catch (error) {
    if (!(error instanceof RedirectError) || error.code !== 'UNSUPPORTED') throw error;
    return `older sockets not closed: ${error.message}`;
  }
}

async function remove(settings: Settings): Promise<void> {
  const { host, target } = settings;
  const attempts = collectErrors();
  await attempts.run(() => {
    removePrograms(settings.pinFolder);
    return Promise.resolve();
  });
  await attempts.run(async () => {
    const behind = await orUnavailable(settings.behind.remove());
    if (behind.kind === 'status') return;
    await removeGuard(host, target.metadataIp);
    await removeLink(host, target.listenIp);
  });
  attempts.throwFirst();
}

async function readBack(settings: Settings): Promise<RedirectStatus> {
  const { target } = settings;
  const wanted = wantedPrograms(settings);
  const found = wanted.kind === 'impossible' ? [wanted.problem] : diffPrograms(wanted.programs);
  const behind = await readBehind(settings);
  const where = wanted.kind === 'impossible' ? 'no cgroup' : wanted.programs.cgroup.path;
  const detail = [`eBPF on ${where}`, describeTarget(target), behind.detail].join('; ');
  const problems = [
    ...(found === 'absent' ? ['no programs installed'] : found),
    ...behind.problems,
  ];
  if (problems.length === 0) return { state: 'active', detail, problems };
  return { state: found === 'absent' ? 'absent' : 'broken', detail, problems };
}

interface BehindState {
  readonly detail: string;
  readonly problems: readonly string[];
}

async function readBehind(settings: Settings): Promise<BehindState> {
  const { host, target } = settings;
  const behind = await orUnavailable(settings.behind.verify());
  if (behind.kind === 'status') {
    return { detail: `behind it ${behind.status.detail}`, problems: behind.status.problems };
  }
  const links = await listLinks(host);
  const problems = [
    ...(await diffLink(host, links, target.listenIp)),
    ...(settings.guard ? await diffGuard(host, target.metadataIp) : []),
  ];
  const detail = [
    describeLink(links, target.listenIp),
    `guard ${settings.guard ? 'on' : 'off'}`,
    `no netfilter behind it: ${behind.reason}`,
  ];
  return { detail: detail.join('; '), problems };
}

type OrUnavailable<T> =
  | { readonly kind: 'status'; readonly status: T }
  | { readonly kind: 'unavailable'; readonly reason: string };

/** A node without a working iptables is no reason not to redirect by other means. */
async function orUnavailable<T>(work: Promise<T>): Promise<OrUnavailable<T>> {
  try {
    return { kind: 'status', status: await work };
  } catch (error) {
    if (!isUnavailable(error)) throw error;
    return { kind: 'unavailable', reason: error.message };
  }
}

type Wanted =
  | { readonly kind: 'programs'; readonly programs: WantedPrograms }
  | { readonly kind: 'impossible'; readonly problem: string };

function wantedPrograms(settings: Settings): Wanted {
  const cgroupRoot = resolveCgroupRoot(settings.cgroupRoot);
  const path = settings.attachTo ?? findPodsRoot(cgroupRoot);
  if (path === undefined) {
    return { kind: 'impossible', problem: `no cgroup of pods below ${cgroupRoot}` };
  }
  const id = cgroupIdOf(path);
  if (id === undefined) return { kind: 'impossible', problem: `no cgroup ${path}` };
  const exempt = wantedExempt(settings, path, id);
  if (typeof exempt === 'string') return { kind: 'impossible', problem: exempt };
  const object = readPrograms();
  const node = {
    podsRoot: id,
    qosClasses: qosClassIds(path).slice(0, 2),
    netnsCookie: settings.netnsCookie ?? inKernel((native) => native.netnsCookie()),
  };
  return {
    kind: 'programs',
    programs: {
      pinFolder: settings.pinFolder,
      object,
      settings: settingsOf(object, settings.target, node),
      cgroup: { path, id },
      exempt,
    },
  };
}

/**
 * The agent's own cgroup, or its whole pod's; or why that is not known. Another container of the pod
 * may fetch the tokens: what exempted this one alone would let its calls come back to it. Not where it is the redirected cgroup itself or lies
 * above: there the agent is not redirected, and exempting it would exempt every pod.
 */
function wantedExempt(
  settings: Settings,
  attachPath: string,
  attachId: bigint,
): readonly bigint[] | string {
  const above = new Set([attachId, ...ancestorIds(attachPath)]);
  const ownPod = settings.ownPodUid;
  const own = ownPod === undefined ? ownCgroupId() : listPodCgroups(attachPath, ownPod)[0]?.id;
  if (own === undefined) {
    return ownPod === undefined
      ? 'the agent’s own cgroup is in no mounted part of the tree'
      : `the agent’s pod ${ownPod} has no cgroup below ${attachPath}`;
  }
  const ids = new Set([own, ...settings.exemptCgroupIds]);
  return [...ids].filter((id) => !above.has(id));
}
