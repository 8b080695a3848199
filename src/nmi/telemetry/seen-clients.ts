/** How pods of this node call, for a move to Workload Identity; shown only to the operator. */
import { dropOldest } from '../../base/drop-oldest.ts';
import { fullName } from '../../cache/index/object-name.ts';
import { loggableResource } from '../../base/log.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { IdentifiedBy } from '../callers/caller.ts';
import type { PastDecision, RequestRecord } from '../server/request-record.ts';
import type { TokenDecision } from '../server/request.ts';
import type { Renderer } from './renderer.ts';
import { nameClient, type ClientName } from './user-agent.ts';

/** A pod that sends ever new versions evicts only its own entries. */
const maxOfPod = 4;
/** A pod that varies its requests evicts only its own decisions. */
const maxDecisions = 5;
/** A node has 250 pods at most, unless that limit was raised; at most 4 kB each. */
const maxPods = 1_000;

interface Seen {
  /** The latest last. */
  readonly decisions: Map<string, readonly [atMs: number, Omit<PastDecision, 'agoMs'>]>;
  readonly names: Set<ClientName>;
  readonly identifiedBy: Set<IdentifiedBy>;
}

export class SeenClients implements Renderer {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #byPod = new Map<string, Seen>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /** At `/host/token` another process sends the request for the pod. */
  render(record: RequestRecord): void {
    const { route, decision, pod, userAgent, identifiedBy } = record;
    if (pod === undefined || decision?.grant === undefined || route.kind !== 'token') return;
    this.see(pod.uid, userAgent, identifiedBy);
    this.#decide(pod.uid, record, decision);
  }

  #decide(podUid: string, { status, reason }: RequestRecord, decision: TokenDecision): void {
    const decisions = this.#byPod.get(podUid)?.decisions;
    if (decisions === undefined) return;
    const granted = decision.grant?.kind === 'granted' ? decision.grant.identity : undefined;
    const made = {
      status,
      reason,
      identity: granted === undefined ? '' : fullName(granted),
      resource: decision.resource === '' ? '' : loggableResource(decision.resource),
      cache: decision.cache,
    };
    const key = JSON.stringify(made);
    decisions.delete(key);
    decisions.set(key, [this.#clock.monotonicMs(), made]);
    dropOldest(decisions, maxDecisions);
  }

  /** The latest first. */
  decisions(podUid: string): readonly PastDecision[] {
    const nowMs = this.#clock.monotonicMs();
    return [...(this.#byPod.get(podUid)?.decisions.values() ?? [])]
      .map(([atMs, made]) => ({ agoMs: nowMs - atMs, ...made }))
      .toReversed();
  }

  forget(podUids: readonly string[]): void {
    for (const uid of podUids) this.#byPod.delete(uid);
  }

  see(podUid: string, userAgent: string, by: IdentifiedBy | undefined): void {
    const { names, identifiedBy } = this.#byPod.get(podUid) ?? this.#add(podUid);
    if (by !== undefined) identifiedBy.add(by);
    names.add(nameClient(userAgent));
    dropOldest(names, maxOfPod);
  }

  of(podUid: string): readonly ClientName[] {
    return [...(this.#byPod.get(podUid)?.names ?? [])].toSorted();
  }

  identifiedBy(podUid: string): readonly IdentifiedBy[] {
    return [...(this.#byPod.get(podUid)?.identifiedBy ?? [])].toSorted();
  }

  #add(podUid: string): Seen {
    const seen: Seen = { decisions: new Map(), names: new Set(), identifiedBy: new Set() };
    this.#byPod.set(podUid, seen);
    dropOldest(this.#byPod, maxPods);
    return seen;
  }
}
