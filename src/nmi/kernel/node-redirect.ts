/**
 * The redirect of a node as one component of the agent: whether it is active, the port to listen on, who called, and
 * counters. This process maintains it (`Reconciler`), or another container of the pod does (`ExternalRedirect`).
 */
import type { Clock } from '../../base/time/clock.ts';
import type { Log } from '../../base/log.ts';
import { StartError } from '../../base/start-error.ts';
import { CgroupIndex } from '../../redirect/cgroup/cgroup-index.ts';
import { podCgroupId } from '../../redirect/cgroup/cgroup-tree.ts';
import { attestSocket, whyUnanswered } from '../../redirect/ebpf/callers.ts';
import { nativeModule } from '../../redirect/native/addon.ts';
import type { Attestation, Peer, RedirectMode, RedirectStatus } from '../../redirect/redirect.ts';
import { samplesBy, type Part, type Sample } from '../base/part.ts';
import type { Condition } from '../base/readiness.ts';
import {
  openPodNetwork,
  withPlace,
  type PodNetwork,
  type UnrecordedCallers,
} from '../callers/place.ts';

export interface NodeRedirectOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Called after each check of the redirect, and when another agent of this node changes. */
  readonly onStatus?: (() => void) | undefined;
  /** The port of a node's only agent. */
  readonly listenPort: number;
  /** Other agents may run on this node. */
  readonly hasSlots: boolean;
  readonly unrecordedCallers: UnrecordedCallers;
  /** Returns the current folder of all pods in the cgroup v2 tree; absent without eBPF. */
  readonly podsRoot?: (() => string | undefined) | undefined;
}

/**
 * Afterwards no connection is older than the redirect. At a boot, an upgrade or the switch from another agent, one
 * can reach the agent without a record of its caller: its SYN waited, or netfilter remembers its port from before.
 */
export const settlingMs = {
  /** After an installation: as long as SDKs and the kernel repeat what began before it. */
  installed: 60_000,
  /** After a repair, and after the start of a process: another one may have just changed the redirect. */
  repaired: 5_000,
} as const;

/** SDKs take a 403 as final, so a connection that may be older than the redirect gets a 503. */
const maybeOlder: Attestation = {
  kind: 'unattested',
  retryWhy: 'the redirect was changed less than a minute ago, and this connection may be older',
};

export abstract class NodeRedirect
  implements Required<Pick<Part, 'conditions' | 'samples'>>, AsyncDisposable
{
  readonly hasSlots: boolean;
  readonly #options: NodeRedirectOptions;
  readonly #cgroups: CgroupIndex;
  readonly #network: PodNetwork;
  readonly #unrecorded = { by_link: 0, refused: 0 };
  /** Monotonic time from which no connection is older than the redirect; undefined before the first success. */
  settledAtMs: number | undefined;
  /** Nothing is installed yet, until the own agent listens. */
  isWaiting = false;

  constructor(options: NodeRedirectOptions) {
    this.#options = options;
    this.hasSlots = options.hasSlots;
    this.#cgroups = new CgroupIndex(() => options.podsRoot?.(), options.clock);
    this.#network = openPodNetwork(options.log, options.clock);
  }

  /** Known after `prepare`. */
  abstract get mode(): RedirectMode | 'pinned';
  /** The port that the own agent listens on. Known after `prepare`. 0: other agents have both. */
  abstract get port(): number;
  /** Begins the checks; a failure is a state, not an exception. */
  abstract start(): Promise<void>;
  /** Whether the own agent has to listen before it is ready: no other one takes connections. */
  abstract isAlone(): boolean;
  /** Gives new connections to another agent if there is one that takes them; returns whether it has them. */
  abstract leave(): Promise<boolean>;
  /**
   * Lets the pods with these cgroups, and no others, reach the metadata address itself if they are on the
   * host network. A failure is found by the next check of the redirect, which repairs it.
   */
  abstract letThrough(cgroupIds: readonly bigint[]): Promise<void>;
  abstract status(): RedirectStatus;
  /** Ends the checks. The redirect stays: without an agent the node must be closed. */
  abstract [Symbol.asyncDispose](): Promise<void>;
  /** Brings up the address that the agent listens on. */
  protected abstract bringUp(signal?: AbortSignal): Promise<void>;
  /** Why no caller can be known, in any mode, or undefined. */
  protected abstract obstacle(): string | undefined;

  /**
   * Brings up the address that the agent listens on, or stops waiting for it when the signal aborts.
   * @throws StartError if the address cannot be brought up.
   */
  async prepare(signal?: AbortSignal): Promise<void> {
    await this.bringUp(signal).catch((error: unknown) => {
      const problem = 'the listen address could not be brought up';
      throw new StartError('UNAVAILABLE', problem, 'see nmi redirect verify', error);
    });
  }

  /** Whether the redirect was active at least once. */
  get hasBeenActive(): boolean {
    return this.settledAtMs !== undefined;
  }

  /** Who opened a connection, as far as the kernel and the network can tell. */
  attest(peer: Peer): Attestation {
    const { clock, unrecordedCallers } = this.#options;
    const found = this.#lookUp(peer);
    const isSettling = clock.monotonicMs() < (this.settledAtMs ?? Infinity);
    const settled = found.kind === 'unattested' && isSettling ? maybeOlder : found;
    const placed = withPlace(settled, peer, this.#network, unrecordedCallers);
    if (placed.kind === 'by-link') this.#unrecorded.by_link++;
    else if (placed.kind === 'unattested') this.#unrecorded.refused++;
    return placed;
  }

  #lookUp({ socket }: Peer): Attestation {
    const why = this.obstacle();
    if (why !== undefined) return { kind: 'unavailable', why };
    return this.mode === 'ebpf' ? attestSocket(socket) : { kind: 'by-address' };
  }

  /** Known after `prepare`; undefined if no caller is identified by its address. */
  get network(): PodNetwork | undefined {
    const { unrecordedCallers } = this.#options;
    return this.mode === 'ebpf' && unrecordedCallers === 'refuse' ? undefined : this.#network;
  }

  /** Why callers cannot be looked up, or undefined. */
  whyUnavailable(): string | undefined {
    return this.obstacle() ?? (this.mode === 'ebpf' ? whyUnanswered() : undefined);
  }

  /** The candidate pod UID that a cgroup belongs to, or undefined. */
  findCgroupUid(cgroupId: bigint, candidates: readonly string[]): string | undefined {
    return this.#cgroups.resolve(cgroupId, candidates);
  }

  /** The cgroup of a pod, by the UID in its cgroup's name; undefined before the kubelet has created it. */
  podCgroup(cgroupUid: string): bigint | undefined {
    const root = this.#options.podsRoot?.();
    return root === undefined ? undefined : podCgroupId(root, cgroupUid);
  }

  /** Why pods are not redirected; undefined if they are, or if no redirect is configured. */
  problem(): string | undefined {
    const status = this.status();
    const isUp = status.state === 'active' || status.state === 'off';
    return isUp ? this.whyUnavailable() : problemOf(status);
  }

  /** Returns unused memory of the C library to the kernel. Throws if this is impossible. */
  trimMemory(): void {
    nativeModule().trimMemory();
  }

  /** None if no redirect is configured and none was left behind: there is nothing to report. */
  get conditions(): readonly Condition[] {
    if (this.status().state === 'off') return [];
    return [{ name: 'redirect', problem: () => this.problem() }];
  }

  samples(): readonly Sample[] {
    if (this.status().state === 'off') return [];
    const { mode } = this;
    const value = this.problem() === undefined ? 1 : 0;
    return [
      { metric: 'nmi_redirect_up', labels: { mode }, value },
      ...(mode === 'ebpf'
        ? samplesBy('nmi_unrecorded_callers_total', 'outcome', this.#unrecorded)
        : []),
    ];
  }
}

export function problemOf({ problems, detail }: RedirectStatus): string {
  return problems.join('; ') || detail;
}
