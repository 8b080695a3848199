/**
 * The kernel side of a node as one component of the agent: the configured redirect and its
 * reconciler, the look-up of callers, and counters.
 */
import type { Clock } from '../../base/time/clock.ts';
import { CgroupIndex } from '../../redirect/cgroup/cgroup-index.ts';
import { podCgroupId } from '../../redirect/cgroup/cgroup-tree.ts';
import { nativeModule } from '../../redirect/native/addon.ts';
import type { Attestation, Peer, RedirectMode, RedirectStatus } from '../../redirect/redirect.ts';
import type { Logger } from '../../base/logger.ts';
import { samplesBy, type Part, type Sample } from '../base/part.ts';
import { StartError } from '../../base/start-error.ts';
import { openPodNetwork, withPlace, type PodNetwork } from '../callers/place.ts';
import type { Config } from '../config/config.ts';
import { chooseRedirect, type KernelCounts } from './choose-redirect.ts';
import { Reconciler, type CheckOutcome } from './reconciler.ts';

export interface Kernel extends Required<Pick<Part, 'conditions' | 'samples'>>, AsyncDisposable {
  /** Known after `prepare`. */
  readonly mode: RedirectMode;
  /**
   * Brings up the address that the agent listens on, or stops waiting for it when the signal aborts.
   * @throws StartError if the address cannot be brought up.
   */
  prepare(signal?: AbortSignal): Promise<void>;
  /** Installs the redirect, then checks it periodically; a failure is a state, not an exception. */
  start(): Promise<void>;
  /** Who opened a connection, as far as the kernel and the network can tell. */
  attest(peer: Peer): Attestation | Promise<Attestation>;
  /** The same by the kernel's records alone. */
  lookUp(peer: Peer): Attestation | Promise<Attestation>;
  /** Known after `prepare`; undefined if no caller is identified by its address. */
  readonly network: PodNetwork | undefined;
  /** Why look-ups are unavailable, or undefined. */
  whyUnavailable(): string | undefined;
  /** The candidate pod UID that a cgroup belongs to, or undefined. */
  findCgroupUid(cgroupId: bigint, candidates: readonly string[]): string | undefined;
  /** The cgroup of a pod, by the UID in its cgroup's name; undefined before the kubelet has created it. */
  podCgroup(cgroupUid: string): bigint | undefined;
  /**
   * Lets the pods with these cgroups, and no others, reach the metadata address itself if they are on the
   * host network. A failure is found by the next check of the redirect, which repairs it.
   */
  letThrough(cgroupIds: readonly bigint[]): Promise<void>;
  status(): RedirectStatus;
  /** Why pods are not redirected; undefined if they are, or if no redirect is configured. */
  problem(): string | undefined;
  /** Whether the redirect was active at least once. */
  hasBeenActive(): boolean;
  /** Repairs nothing until `resume`; the redirect is read, and callers are looked up. */
  pause(): Promise<void>;
  resume(): void;
  /** Returns unused memory of the C library to the kernel. Throws if this is impossible. */
  trimMemory(): void;
}

export interface KernelOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether another agent of this node still runs. Its calls must not be redirected either. */
  readonly hasPredecessor?: () => boolean;
}

/** SDKs take a 403 as final, so a connection that may be older than the redirect gets a 503. */
const maybeOlder: Attestation = {
  kind: 'unattested',
  retryWhy: 'the redirect was changed less than a minute ago, and this connection may be older',
};

export function openKernel({ config, clock, log, hasPredecessor }: KernelOptions): Kernel {
  const { redirect, why, podsRoot, counts } = chooseRedirect(config, clock, hasPredecessor);
  log.info({ mode: redirect.mode, why }, 'redirect chosen');
  const cgroups = podsRoot === undefined ? undefined : new CgroupIndex({ podsRoot });
  const checks: Record<CheckOutcome, number> = {
    unchanged: 0,
    installed: 0,
    repaired: 0,
    failed: 0,
  };
  const redirectLog = log.child({ component: 'redirect' });
  const reconciler = new Reconciler({
    redirect,
    intervalMs: config.redirectIntervalMs,
    // The question to the other container is cheap. Waits that grow beyond a probe's period left the agent unready after
    // that container was back, and an update replaces an agent that is not ready before the next one serves.
    longestRetryMs: config.redirect === 'pinned' ? 1_000 : undefined,
    clock,
    log: redirectLog,
    onCheck: (outcome) => void checks[outcome]++,
  });
  const programSamples = counts === undefined ? () => [] : programSampler(counts);
  const network = openPodNetwork(redirectLog, clock);
  const { unrecordedCallers } = config;
  const unrecorded = { by_link: 0, refused: 0 };
  const settled = (attestation: Attestation): Attestation => {
    const isSettling = clock.monotonicMs() < (reconciler.settledAtMs ?? Infinity);
    return attestation.kind === 'unattested' && isSettling ? maybeOlder : attestation;
  };
  const completed = (attestation: Attestation, peer: Peer): Attestation => {
    const placed = withPlace(settled(attestation), peer, network, unrecordedCallers);
    if (placed.kind === 'by-link') unrecorded.by_link++;
    else if (placed.kind === 'unattested') unrecorded.refused++;
    return placed;
  };
  /** No redirect is configured and none was left behind, so there is nothing to report. */
  const isOff = (): boolean => reconciler.status.state === 'off';
  const redirectSamples = (): readonly Sample[] => [
    {
      metric: 'nmi_redirect_up',
      labels: { mode: redirect.mode },
      value: reconciler.problem() === undefined ? 1 : 0,
    },
    ...(redirect.mode === 'ebpf'
      ? samplesBy('nmi_unrecorded_callers_total', 'outcome', unrecorded)
      : []),
    ...samplesBy('nmi_redirect_reconciles_total', 'outcome', checks),
  ];
  return {
    get mode() {
      return redirect.mode;
    },
    prepare: (signal) =>
      redirect.prepare(signal).catch((error: unknown) => {
        const problem = 'the listen address could not be brought up';
        throw new StartError('UNAVAILABLE', problem, 'see nmi redirect verify', error);
      }),
    start: () => reconciler.start(),
    attest: (peer) => {
      const attestation = redirect.attest(peer);
      return 'then' in attestation
        ? attestation.then((later) => completed(later, peer))
        : completed(attestation, peer);
    },
    lookUp: (peer) => {
      const attestation = redirect.attest(peer);
      return 'then' in attestation ? attestation.then(settled) : settled(attestation);
    },
    get network() {
      return redirect.mode === 'ebpf' && unrecordedCallers === 'refuse' ? undefined : network;
    },
    whyUnavailable: () => redirect.whyUnavailable?.(),
    findCgroupUid: (cgroupId, candidates) => cgroups?.resolve(cgroupId, candidates),
    podCgroup: (cgroupUid) => {
      const root = podsRoot?.();
      return root === undefined ? undefined : podCgroupId(root, cgroupUid);
    },
    letThrough: async (cgroupIds) => {
      await redirect.letThrough?.(cgroupIds).catch((error: unknown) => {
        redirectLog.debug({ err: error }, 'failed to let pods of the host network through');
      });
    },
    status: () => reconciler.status,
    problem: () => reconciler.problem(),
    hasBeenActive: () => reconciler.settledAtMs !== undefined,
    pause: () => reconciler.pause(),
    resume: () => reconciler.resume(),
    trimMemory: () => nativeModule().trimMemory(),
    get conditions() {
      return isOff() ? [] : [{ name: 'redirect', problem: () => reconciler.problem() }];
    },
    samples: () => [...(isOff() ? [] : redirectSamples()), ...programSamples()],
    [Symbol.asyncDispose]: async () => {
      redirect.close?.();
      await reconciler[Symbol.asyncDispose]();
    },
  };
}

/** Samples of the programs' counters. */
function programSampler(counts: KernelCounts): () => readonly Sample[] {
  // No mutation: it is read only with programs in the kernel.
  let caught = 0;
  return () => {
    let totals: ReturnType<KernelCounts['counters']>;
    try {
      totals = counts.counters();
    } catch {
      // It must not fail the scrape.
    }
    if (totals === undefined) return [];
    // Reading it runs a tool, so the next scrape shows the value.
    void counts.countFallbackConnections().then(
      (total) => (caught = total ?? caught),
      () => undefined,
    );
    const connects = {
      redirected: totals.redirected,
      direct: totals.direct,
      exempt: totals.exempt,
      limit: totals.refused,
      rate: totals.tooFast,
      full: totals.unrecorded,
    };
    return [
      ...samplesBy('nmi_ebpf_connects_total', 'outcome', connects),
      { metric: 'nmi_redirect_fallback_connections_total', value: caught },
    ];
  };
}
