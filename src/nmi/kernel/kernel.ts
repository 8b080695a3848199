/**
 * The kernel side of a node as one component of the agent: the configured redirect and its
 * reconciler, the look-up of callers, and counters.
 */
import type { Clock } from '../../base/time/clock.ts';
import { CgroupIndex } from '../../redirect/cgroup/cgroup-index.ts';
import { podCgroupId } from '../../redirect/cgroup/cgroup-tree.ts';
import { nativeModule } from '../../redirect/native/addon.ts';
import type {
  Attestation,
  Peer,
  Redirect,
  RedirectMode,
  RedirectStatus,
} from '../../redirect/redirect.ts';
import type { Logger } from '../../base/logger.ts';
import { samplesBy, type Part, type Sample } from '../base/part.ts';
import type { Condition } from '../base/readiness.ts';
import { StartError } from '../../base/start-error.ts';
import { openPodNetwork, withPlace, type PodNetwork } from '../callers/place.ts';
import type { Config } from '../config/config.ts';
import {
  agentCgroup,
  chooseRedirect,
  type KernelCounts,
  type RedirectChoice,
} from './choose-redirect.ts';
import { Reconciler, type CheckOutcome } from './reconciler.ts';
import { takeSlot, type Slot } from './slots.ts';

export interface KernelOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when two other agents have both ports. */
  readonly onWait?: () => void;
  /** Called after each check of the redirect, and when another agent of this node changes. */
  readonly onStatus?: () => void;
}

/** SDKs take a 403 as final, so a connection that may be older than the redirect gets a 503. */
const maybeOlder: Attestation = {
  kind: 'unattested',
  retryWhy: 'the redirect was changed less than a minute ago, and this connection may be older',
};

export function openKernel(options: KernelOptions): Kernel {
  return new Kernel(options);
}

export class Kernel implements Required<Pick<Part, 'conditions' | 'samples'>>, AsyncDisposable {
  readonly #options: KernelOptions;
  readonly #choice: RedirectChoice;
  readonly #redirect: Redirect;
  readonly #log: Logger;
  readonly #reconciler: Reconciler;
  readonly #cgroups: CgroupIndex | undefined;
  readonly #network: PodNetwork;
  readonly #programSamples: () => readonly Sample[];
  readonly #checks: Record<CheckOutcome, number> = {
    unchanged: 0,
    installed: 0,
    repaired: 0,
    failed: 0,
  };
  readonly #unrecorded = { by_link: 0, refused: 0 };
  /** It is maintained by this process. */
  readonly #isOurs: boolean;
  #slot: Slot | undefined;
  #nodePods: readonly bigint[] | undefined;

  constructor(options: KernelOptions) {
    const { config, clock, log, onStatus } = options;
    this.#options = options;
    this.#choice = chooseRedirect(config, clock, onStatus);
    const { redirect, why, podsRoot, counts } = this.#choice;
    log.info({ mode: redirect.mode, why }, 'redirect chosen');
    this.#redirect = redirect;
    this.#isOurs = redirect.mode === 'ebpf' || redirect.mode === 'iptables';
    this.#cgroups = podsRoot === undefined ? undefined : new CgroupIndex(podsRoot, clock);
    this.#log = log.child({ component: 'redirect' });
    this.#network = openPodNetwork(this.#log, clock);
    this.#programSamples = counts === undefined ? () => [] : programSampler(counts);
    this.#reconciler = new Reconciler({
      redirect,
      slot: () => this.#slot,
      ...(onStatus && { onStatus }),
      intervalMs: config.redirectIntervalMs,
      // Reading the other container's file is cheap. Waits that grow beyond a probe's period left the agent unready after
      // that container was back, and an update replaces an agent that is not ready before the next one serves.
      longestRetryMs: config.redirect === 'pinned' ? 1_000 : undefined,
      clock,
      log: this.#log,
      onCheck: (outcome) => {
        this.#checks[outcome]++;
        // The programs may have been another agent's until this check.
        void this.#letNodePodsThrough();
      },
    });
  }

  /** Known after `prepare`. */
  get mode(): RedirectMode {
    return this.#redirect.mode;
  }

  /**
   * Brings up the address that the agent listens on, or stops waiting for it when the signal aborts.
   * @throws StartError if the address cannot be brought up.
   */
  async prepare(signal?: AbortSignal): Promise<void> {
    // First: a third agent of the node must not change what the kernel has of the other two.
    if (this.#isOurs) this.#slot = await takeOwnSlot(this.#options, this.#log, signal);
    await this.#redirect.prepare(signal).catch((error: unknown) => {
      const problem = 'the listen address could not be brought up';
      throw new StartError('UNAVAILABLE', problem, 'see nmi redirect verify', error);
    });
  }

  /** Installs the redirect, then checks it periodically; a failure is a state, not an exception. */
  start(): Promise<void> {
    return this.#reconciler.start();
  }

  /** The port that the own agent listens on. Known after `prepare`. 0: other agents have both. */
  get port(): number {
    return this.#choice.external?.port() ?? this.#slot?.port ?? this.#options.config.listenPort;
  }

  /** Other agents may run on this node. */
  get hasSlots(): boolean {
    return this.#choice.external !== undefined || this.#options.config.slotFolder !== '';
  }

  /** Whether the own agent has to listen before it is ready: no other one takes connections. */
  isAlone(): boolean {
    return this.#choice.external?.isAlone() ?? this.#slot?.isAlone() ?? true;
  }

  /** Gives new connections to another agent if there is one that takes them; returns whether it has them. */
  leave(): Promise<boolean> {
    return this.#choice.external?.leave() ?? this.#reconciler.leave();
  }

  /** Who opened a connection, as far as the kernel and the network can tell. */
  attest(peer: Peer): Attestation {
    return this.#completed(this.#redirect.attest(peer), peer);
  }

  /** Known after `prepare`; undefined if no caller is identified by its address. */
  get network(): PodNetwork | undefined {
    const { unrecordedCallers } = this.#options.config;
    return this.mode === 'ebpf' && unrecordedCallers === 'refuse' ? undefined : this.#network;
  }

  /** Why look-ups are unavailable, or undefined. */
  whyUnavailable(): string | undefined {
    return this.#redirect.whyUnavailable?.();
  }

  /** The candidate pod UID that a cgroup belongs to, or undefined. */
  findCgroupUid(cgroupId: bigint, candidates: readonly string[]): string | undefined {
    return this.#cgroups?.resolve(cgroupId, candidates);
  }

  /** The cgroup of a pod, by the UID in its cgroup's name; undefined before the kubelet has created it. */
  podCgroup(cgroupUid: string): bigint | undefined {
    const root = this.#choice.podsRoot?.();
    return root === undefined ? undefined : podCgroupId(root, cgroupUid);
  }

  /**
   * Lets the pods with these cgroups, and no others, reach the metadata address itself if they are on the
   * host network. A failure is found by the next check of the redirect, which repairs it.
   */
  async letThrough(cgroupIds: readonly bigint[]): Promise<void> {
    this.#nodePods = cgroupIds;
    await this.#letNodePodsThrough();
  }

  status(): RedirectStatus {
    return this.#reconciler.status;
  }

  /** Why pods are not redirected; undefined if they are, or if no redirect is configured. */
  problem(): string | undefined {
    return this.#reconciler.problem() ?? this.whyUnavailable();
  }

  /** The redirect is not installed before the own agent listens. */
  isWaiting(): boolean {
    return this.#reconciler.isWaiting;
  }

  /** Whether the redirect was active at least once. */
  hasBeenActive(): boolean {
    return this.#reconciler.settledAtMs !== undefined;
  }

  /** Returns unused memory of the C library to the kernel. Throws if this is impossible. */
  trimMemory(): void {
    nativeModule().trimMemory();
  }

  get conditions(): readonly Condition[] {
    return this.#isOff() ? [] : [{ name: 'redirect', problem: () => this.problem() }];
  }

  samples(): readonly Sample[] {
    return [...(this.#isOff() ? [] : this.#redirectSamples()), ...this.#programSamples()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#redirect.close?.();
    await this.#reconciler[Symbol.asyncDispose]();
    this.#slot?.[Symbol.dispose]();
    this.#slot = undefined;
  }

  /** Of two agents, the one that maintains the redirect. */
  async #letNodePodsThrough(): Promise<void> {
    if (this.#nodePods === undefined || (this.#isOurs && !this.#reconciler.isOwner)) return;
    await this.#redirect.letThrough?.(this.#nodePods).catch((error: unknown) => {
      this.#log.warn({ err: error }, 'failed to let pods of the host network through');
    });
  }

  #settled(attestation: Attestation): Attestation {
    const isSettling =
      this.#options.clock.monotonicMs() < (this.#reconciler.settledAtMs ?? Infinity);
    return attestation.kind === 'unattested' && isSettling ? maybeOlder : attestation;
  }

  #completed(attestation: Attestation, peer: Peer): Attestation {
    const { unrecordedCallers } = this.#options.config;
    const placed = withPlace(this.#settled(attestation), peer, this.#network, unrecordedCallers);
    if (placed.kind === 'by-link') this.#unrecorded.by_link++;
    else if (placed.kind === 'unattested') this.#unrecorded.refused++;
    return placed;
  }

  /** No redirect is configured and none was left behind, so there is nothing to report. */
  #isOff(): boolean {
    return this.#reconciler.status.state === 'off';
  }

  #redirectSamples(): readonly Sample[] {
    const { mode } = this;
    return [
      {
        metric: 'nmi_redirect_up',
        labels: { mode },
        value: this.problem() === undefined ? 1 : 0,
      },
      ...(mode === 'ebpf'
        ? samplesBy('nmi_unrecorded_callers_total', 'outcome', this.#unrecorded)
        : []),
      ...samplesBy('nmi_redirect_reconciles_total', 'outcome', this.#checks),
    ];
  }
}

function takeOwnSlot(
  { config, clock, onWait }: KernelOptions,
  log: Logger,
  signal?: AbortSignal,
): Promise<Slot> {
  const { slotFolder, listenIp: ip, listenPort: firstPort, podUid } = config;
  // Outside a pod, a process that starts again is another agent.
  const pod = podUid === '' ? `${process.pid} since ${clock.wallMs()}` : podUid;
  const cgroup = agentCgroup(config);
  return takeSlot({ folder: slotFolder, ip, firstPort, pod, cgroup, clock, log, onWait }, signal);
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
