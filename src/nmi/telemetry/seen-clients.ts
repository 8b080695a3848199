/** How pods of this node call, for a move to Workload Identity; shown only to the operator. */
import { dropOldest } from '../../base/drop-oldest.ts';
import type { IdentifiedBy } from '../callers/caller.ts';
import type { RequestRecord } from '../server/request-record.ts';
import type { Renderer } from './renderer.ts';
import { nameClient, type ClientName } from './user-agent.ts';

/** A pod that sends ever new versions evicts only its own entries. */
const maxOfPod = 4;
/** A node has 250 pods at most, unless that limit was raised; a quarter of a kilobyte each. */
const maxPods = 1_000;

interface Seen {
  readonly names: Set<ClientName>;
  readonly identifiedBy: Set<IdentifiedBy>;
}

export class SeenClients implements Renderer {
  readonly #byPod = new Map<string, Seen>();

  /** At `/host/token` another process sends the request for the pod. */
  render({ route, decision, pod, userAgent, identifiedBy }: RequestRecord): void {
    if (pod === undefined || decision?.grant === undefined || route.kind !== 'token') return;
    this.see(pod.uid, userAgent, identifiedBy);
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
    const seen: Seen = { names: new Set(), identifiedBy: new Set() };
    this.#byPod.set(podUid, seen);
    dropOldest(this.#byPod, maxPods);
    return seen;
  }
}
