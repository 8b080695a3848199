/**
 * Which namespaces may use which Azure identities, from the `AzureIdentityGrant`s of the cluster. A
 * namespace without a grant may use none.
 */
import { normaliseClientId, normaliseResourceId } from './identifiers.ts';
import { Multimap } from './multimap.ts';
import { MemoryObjectStore } from './object-store.ts';
import type { IdentityGrant, ObjectStore } from './objects.ts';
import { Observers } from './observers.ts';

const everyNamespace = '*';

export class OwnerIndex {
  readonly #observers: Observers;
  readonly #byClientId = new Multimap<IdentityGrant>();
  readonly #byResourceId = new Multimap<IdentityGrant>();
  readonly #ofNode = new Set<IdentityGrant>();
  readonly #grants = new MemoryObjectStore<IdentityGrant>({
    changed: (before, after) => {
      if (before !== undefined) this.#remove(before);
      if (after !== undefined) this.#add(after);
      this.#isChanged = true;
    },
    settled: () => this.#settle(),
  });
  #isChanged = false;
  #generation = 0;

  constructor(onObserverError?: (error: unknown) => void) {
    this.#observers = new Observers(onObserverError);
  }

  get grants(): ObjectStore<IdentityGrant> {
    return this.#grants;
  }

  /** Grows with every change of a grant. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * One of the grants by which the namespace owns it.
   * @param clientId in any letter case.
   */
  grantOfClientId(namespace: string, clientId: string): IdentityGrant | undefined {
    return findFor(namespace, this.#byClientId.of(normaliseClientId(clientId)));
  }

  /** @param resourceId in any spelling. */
  grantOfResourceId(namespace: string, resourceId: string): IdentityGrant | undefined {
    return findFor(namespace, this.#byResourceId.of(normaliseResourceId(resourceId)));
  }

  /** One of the grants by which exceptions of the namespace are honored. */
  grantOfNodeIdentities(namespace: string): IdentityGrant | undefined {
    return findFor(namespace, this.#ofNode);
  }

  /**
   * Calls `observer` once after each step that changed a grant. The returned function unsubscribes.
   */
  onChange(observer: () => void): () => void {
    return this.#observers.add(observer);
  }

  #add(grant: IdentityGrant): void {
    for (const id of grant.clientIds) this.#byClientId.add(id, grant);
    for (const id of grant.resourceIds) this.#byResourceId.add(id, grant);
    if (grant.nodeIdentities) this.#ofNode.add(grant);
  }

  #remove(grant: IdentityGrant): void {
    for (const id of grant.clientIds) this.#byClientId.delete(id, grant);
    for (const id of grant.resourceIds) this.#byResourceId.delete(id, grant);
    this.#ofNode.delete(grant);
  }

  #settle(): void {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    this.#generation++;
    this.#observers.notify();
  }
}

function findFor(namespace: string, grants: Iterable<IdentityGrant>): IdentityGrant | undefined {
  for (const grant of grants) {
    const { namespaces } = grant;
    if (namespaces.includes(namespace) || namespaces.includes(everyNamespace)) return grant;
  }
  return undefined;
}
