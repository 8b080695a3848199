/**
 * Opens the redirect that the configuration chooses. `auto` is eBPF if the node supports it, else iptables; the
 * logged reason names the missing part.
 */
import type { Logger } from '../../base/logger.ts';
import { systemClock, type Clock } from '../../base/time/clock.ts';
import {
  cgroupIdOf,
  findCgroupRoot,
  findPodsRoot,
  ownCgroupPath,
  podCgroupId,
} from '../../redirect/cgroup/cgroup-tree.ts';
import { openEbpfRedirect, type EbpfRedirect } from '../../redirect/ebpf/ebpf.ts';
import { tryPinFolder } from '../../redirect/ebpf/pins.ts';
import { findRefusal } from '../../redirect/ebpf/programs.ts';
import { replacePrograms } from '../../redirect/ebpf/stale-programs.ts';
import { openIptablesRedirect } from '../../redirect/iptables/iptables.ts';
import { noRedirect } from '../../redirect/none.ts';
import { RedirectError, type Redirect } from '../../redirect/redirect.ts';
import type { Config } from '../config/config.ts';
import { ExternalRedirect } from './external-redirect.ts';
import type { NodeRedirect } from './node-redirect.ts';
import { Reconciler } from './reconciler.ts';
import { agentCgroups, takeSlot } from './slots.ts';

export interface KernelOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when two other agents have both ports. */
  readonly onWait?: () => void;
  /** Called after each check of the redirect, and when another agent of this node changes. */
  readonly onStatus?: () => void;
}

/** A redirect that this process can maintain. */
export interface RedirectChoice {
  readonly redirect: Redirect;
  /** The same, if it is by programs in the kernel. */
  readonly programs?: EbpfRedirect;
  /** Reason of the choice, for the log. */
  readonly why: string;
}

const byOption = 'chosen by --redirect';

export function openKernel(options: KernelOptions): NodeRedirect {
  const { config, clock, log, onStatus } = options;
  const { listenPort, slotFolder, unrecordedCallers, redirectIntervalMs: intervalMs } = config;
  const isExternal = config.redirect === 'pinned';
  const hasSlots = isExternal || slotFolder !== '';
  const own = log.child({ component: 'redirect' });
  const shared = { clock, log: own, onStatus, listenPort, hasSlots, unrecordedCallers, intervalMs };
  if (isExternal) {
    log.info({ mode: config.redirect, why: byOption }, 'redirect chosen');
    const { sharedFolder: folder } = config;
    const podsRoot = podsRootOf(config);
    return new ExternalRedirect({ ...shared, podsRoot, folder, target: targetOf(config) });
  }
  const { why, ...choice } = chooseRedirect(config, clock);
  const { mode } = choice.redirect;
  log.info({ mode, why }, 'redirect chosen');
  return new Reconciler({
    ...shared,
    ...choice,
    podsRoot: mode === 'ebpf' ? podsRootOf(config) : undefined,
    takeSlot: mode === 'none' ? undefined : (signal) => takeOwnSlot(options, own, signal),
  });
}

function takeOwnSlot(
  { config, clock, onWait }: KernelOptions,
  log: Logger,
  signal: AbortSignal | undefined,
) {
  const { slotFolder, listenIp: ip, listenPort: firstPort, podUid } = config;
  // Outside a pod, a process that starts again is another agent.
  const pod = podUid === '' ? `${process.pid} since ${clock.wallMs()}` : podUid;
  const cgroup = agentCgroup(config);
  return takeSlot({ folder: slotFolder, ip, firstPort, pod, cgroup, clock, log, onWait }, signal);
}

/** @throws RedirectError if another process maintains the redirect. */
export function chooseRedirect(config: Config, clock: Clock = systemClock): RedirectChoice {
  const { redirect, bpfPinFolder } = config;
  switch (redirect) {
    case 'pinned':
      throw new RedirectError('NOT_PERMITTED', redirect, '`nmi redirect run` maintains it');
    case 'none':
      return { redirect: replacePrograms(noRedirect(), bpfPinFolder, clock), why: byOption };
    case 'iptables':
      return { redirect: iptablesAlone(config, clock), why: byOption };
    case 'ebpf':
      return ebpf(config, byOption);
    case 'auto': {
      const missing = missingForEbpf(config);
      return missing === undefined
        ? ebpf(config, 'the kernel has eBPF for cgroups, and pods are in the cgroup2 tree')
        : { redirect: iptablesAlone(config, clock), why: `no eBPF: ${missing}` };
    }
  }
}

function ebpf(config: Config, why: string): RedirectChoice {
  const { podUid } = config;
  const redirect = openEbpfRedirect({
    target: targetOf(config),
    fallback: iptables(config, true),
    otherAgents: () => agentCgroups(config.slotFolder, config.listenPort),
    pinFolder: config.bpfPinFolder,
    cgroupRoot: config.cgroupRoot,
    ...(podUid === '' ? {} : { ownPodUid: podUid }),
  });
  return { redirect, programs: redirect, why };
}

/** The cgroup that programs have to let through for this agent; undefined if it has none in the tree. */
function agentCgroup(config: Config): bigint | undefined {
  return orUndefined(() => {
    if (config.podUid !== '') {
      const root = podsRootOf(config)();
      return root === undefined ? undefined : podCgroupId(root, config.podUid);
    }
    const path = ownCgroupPath();
    return path === undefined ? undefined : cgroupIdOf(path);
  });
}

/** Also called during requests, so it never throws: without a tree it returns undefined. */
function podsRootOf(config: Config): () => string | undefined {
  return () => orUndefined(() => findPodsRoot(findCgroupRoot(config.cgroupRoot)));
}

function orUndefined<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch (error) {
    if (error instanceof RedirectError) return undefined;
    throw error;
  }
}

function iptablesAlone(config: Config, clock: Clock): Redirect {
  return replacePrograms(iptables(config, false), config.bpfPinFolder, clock);
}

function iptables(config: Config, isBehind: boolean): Redirect {
  return openIptablesRedirect({
    target: targetOf(config),
    isBehind,
    backend: config.iptablesBackend,
    guard: config.metadataGuard,
  });
}

function targetOf({ metadataIp, metadataPort, listenIp, listenPort }: Config) {
  return { metadataIp, metadataPort, listenIp, listenPort };
}

/** The requirement of eBPF that this node lacks; undefined if it lacks none. */
function missingForEbpf(config: Config): string | undefined {
  try {
    const root = findCgroupRoot(config.cgroupRoot);
    if (findPodsRoot(root) === undefined) return `no pods in the cgroup2 tree at ${root}`;
    const refusal = findRefusal(config.bpfPinFolder);
    if (refusal === undefined) {
      tryPinFolder(config.bpfPinFolder);
      return undefined;
    }
    // A capability is missing, or the container runtime's seccomp profile has no rule for CAP_BPF.
    return refusal.code === 'NOT_PERMITTED'
      ? 'bpf(2) is not permitted: it takes CAP_BPF, CAP_NET_ADMIN and a seccomp profile with it'
      : `the kernel refuses the programs: ${refusal.message}`;
  } catch (error) {
    if (error instanceof RedirectError) return error.message;
    throw error;
  }
}
