/**
 * Records the SDKs that each pod of this node uses, for a move to Workload Identity. Kept by pod
 * UID and shown only on the operator's local socket.
 */
import { nameClient, type ClientName } from './user-agent.ts';

/** A pod that sends ever new versions evicts only its own entries. */
const maxOfPod = 4;
/** A node has 250 pods at most, unless that limit was raised; a quarter of a kilobyte each. */
const maxPods = 1_000;

export class SeenClients {
  /** In the order in which pods were first seen. */
  readonly #byPod = new Map<string, Set<ClientName>>();

  see(podUid: string, userAgent: string): void {
    const name = nameClient(userAgent);
    const known = this.#byPod.get(podUid);
    if (known?.has(name) === true) return;
    const names = known ?? new Set<ClientName>();
    if (known === undefined) {
      if (this.#byPod.size >= maxPods) deleteFirst(this.#byPod);
      this.#byPod.set(podUid, names);
    }
    if (names.size >= maxOfPod) deleteFirst(names);
    names.add(name);
  }

  /** Sorted; empty for a pod that was not seen. */
  of(podUid: string): readonly ClientName[] {
    return [...(this.#byPod.get(podUid) ?? [])].toSorted();
  }
}

function deleteFirst<T>(from: Map<T, unknown> | Set<T>): void {
  const [first] = from.keys();
  if (first !== undefined) from.delete(first);
}
