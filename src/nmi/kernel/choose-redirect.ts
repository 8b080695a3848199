/**
 * Chooses the redirect for a configuration, and logs the reason. `auto` is eBPF if the node supports it,
 * else iptables; the reason names the missing part.
 */
import {
  cgroupIdOf,
  findCgroupRoot,
  findPodsRoot,
  ownCgroupPath,
  podCgroupId,
} from '../../redirect/cgroup/cgroup-tree.ts';
import { findPinObstacle } from '../../redirect/ebpf/pins.ts';
import { findRefusal } from '../../redirect/ebpf/programs.ts';
import { openEbpfRedirect, type EbpfRedirect } from '../../redirect/ebpf/ebpf.ts';
import { replacePrograms } from '../../redirect/ebpf/stale-programs.ts';
import { openIptablesRedirect, type IptablesRedirect } from '../../redirect/iptables/iptables.ts';
import { noRedirect } from '../../redirect/none.ts';
import { RedirectError, type Redirect } from '../../redirect/redirect.ts';
import { systemClock, type Clock } from '../../base/time/clock.ts';
import type { Config } from '../config/config.ts';
import { openExternalRedirect, type ExternalRedirect } from './external-redirect.ts';
import { agentCgroups } from './slots.ts';

/** Counters of the programs and the fallback. */
export type KernelCounts = Pick<EbpfRedirect, 'counters' | 'countFallbackConnections'>;

export interface RedirectChoice {
  readonly redirect: Redirect;
  /** The same, if another process maintains it. */
  readonly external?: ExternalRedirect;
  /** Undefined for modes that have no programs in the kernel. */
  readonly counts: KernelCounts | undefined;
  /** Reason of the choice, for the log. */
  readonly why: string;
  /** Returns the current folder of all pods in the cgroup v2 tree; undefined without eBPF. */
  readonly podsRoot: (() => string | undefined) | undefined;
}

const plain = {
  why: 'chosen by --redirect',
  podsRoot: undefined,
  counts: undefined,
} as const;

/** @param onReport another process that maintains the redirect has reported its state. */
export function chooseRedirect(
  config: Config,
  clock: Clock = systemClock,
  onReport?: () => void,
): RedirectChoice {
  switch (config.redirect) {
    case 'none':
      return { redirect: replacePrograms(noRedirect(), config.bpfPinFolder, clock), ...plain };
    case 'iptables':
      return { redirect: iptablesAlone(config, clock), ...plain };
    case 'pinned': {
      const redirect = openExternalRedirect({
        folder: config.sharedFolder,
        target: targetOf(config),
        clock,
        ...(onReport && { onReport }),
      });
      return { redirect, external: redirect, ...plain, podsRoot: podsRootOf(config) };
    }
    case 'ebpf':
      return ebpf(config, 'chosen by --redirect');
    case 'auto': {
      const missing = missingForEbpf(config);
      if (missing !== undefined) {
        return { redirect: iptablesAlone(config, clock), ...plain, why: `no eBPF: ${missing}` };
      }
      const why = 'the kernel has eBPF for cgroups, and pods are in the cgroup2 tree';
      return ebpf(config, why);
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
  return { redirect, why, podsRoot: podsRootOf(config), counts: redirect };
}

/** The cgroup that programs have to let through for this agent; undefined if it has none in the tree. */
export function agentCgroup(config: Config): bigint | undefined {
  const root = podsRootOf(config)();
  try {
    if (config.podUid !== '') {
      return root === undefined ? undefined : podCgroupId(root, config.podUid);
    }
    const path = ownCgroupPath();
    return path === undefined ? undefined : cgroupIdOf(path);
  } catch (error) {
    if (error instanceof RedirectError) return undefined;
    throw error;
  }
}

/** Also called during requests, so it never throws: without a tree it returns undefined. */
function podsRootOf(config: Config): () => string | undefined {
  return () => {
    try {
      return findPodsRoot(findCgroupRoot(config.cgroupRoot));
    } catch (error) {
      if (error instanceof RedirectError) return undefined;
      throw error;
    }
  };
}

function iptablesAlone(config: Config, clock: Clock): Redirect {
  return replacePrograms(iptables(config, false), config.bpfPinFolder, clock);
}

function iptables(config: Config, isBehind: boolean): IptablesRedirect {
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
    if (refusal === undefined) return findPinObstacle(config.bpfPinFolder);
    // A capability is missing, or the container runtime's seccomp profile has no rule for CAP_BPF.
    return refusal.code === 'NOT_PERMITTED'
      ? 'bpf(2) is not permitted: it takes CAP_BPF, CAP_NET_ADMIN and a seccomp profile with it'
      : `the kernel refuses the programs: ${refusal.message}`;
  } catch (error) {
    if (error instanceof RedirectError) return error.message;
    throw error;
  }
}
