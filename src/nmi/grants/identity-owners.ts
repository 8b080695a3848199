/**
 * Whether an identity belongs to the namespace that names it. Client ids are no secrets, and every
 * author of an `AzureIdentity` can name any of them; so an `AzureIdentityGrant`, which is of the
 * cluster, has to give it to the namespace.
 *
 * 1. What upstream is asked with counts, not what else the object says: a client id before a
 *    resource id.
 * 2. A Secret of the namespace and the service account of a pod prove to Entra ID themselves whose
 *    the application is. The agent's own service account does not: it is the same for everybody.
 * 3. An exception gives a pod every identity of the node, and is an object of a namespace too.
 */
import type { IdentityGrant } from '../../cache/index/objects.ts';
import type { OwnerIndex } from '../../cache/index/owner-index.ts';
import { isOfAgent } from '../sources/entra/credentials/kinds.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';

/** `warn`: served, and named in log, metric and `nmi explain`. */
export type OwnersMode = 'off' | 'warn' | 'enforce';

/** An entry of a grant: the field of its spec, and what has to be in it. */
export type GrantEntry =
  | { readonly field: 'clientIDs' | 'resourceIDs'; readonly id: string }
  | { readonly field: 'nodeIdentities' };

const ofNode: GrantEntry = { field: 'nodeIdentities' };

/** The grant that an identity of a namespace takes; undefined where none is needed. */
export function entryFor(upstream: UpstreamIdentity): GrantEntry | undefined {
  switch (upstream.kind) {
    case 'client_id':
      return { field: 'clientIDs', id: upstream.value };
    case 'resource_id':
      return { field: 'resourceIDs', id: upstream.value };
    case 'entra':
      return isOfAgent(upstream.credential)
        ? { field: 'clientIDs', id: upstream.clientId }
        : undefined;
    case 'object_id':
    case 'unnamed':
      return ofNode;
  }
}

export class IdentityOwners {
  readonly mode: OwnersMode;
  readonly #index: OwnerIndex;

  constructor(index: OwnerIndex, mode: OwnersMode) {
    this.#index = index;
    this.mode = mode;
  }

  /** Grows whenever an answer may have become another. */
  get generation(): number {
    return this.#index.generation;
  }

  /** The returned function unsubscribes. */
  onChange(listener: () => void): () => void {
    return this.#index.onChange(listener);
  }

  /** What no grant gives to the namespace of an `AzureIdentity`, if it needs one; whatever the mode. */
  lacking(namespace: string, upstream: UpstreamIdentity): GrantEntry | undefined {
    const entry = entryFor(upstream);
    return entry === undefined || this.#has(namespace, entry) ? undefined : entry;
  }

  /** The same for a pod that an exception of its namespace names. */
  lackingForException(namespace: string): GrantEntry | undefined {
    return this.#has(namespace, ofNode) ? undefined : ofNode;
  }

  /** The grant that a decision rests on; undefined where none is needed, or none decides. */
  deciding(namespace: string, upstream: UpstreamIdentity): IdentityGrant | undefined {
    const entry = this.mode === 'enforce' ? entryFor(upstream) : undefined;
    return entry === undefined ? undefined : this.#find(namespace, entry);
  }

  /** The same for a pod that an exception of its namespace names. */
  decidingForException(namespace: string): IdentityGrant | undefined {
    return this.mode === 'enforce' ? this.#find(namespace, ofNode) : undefined;
  }

  #has(namespace: string, entry: GrantEntry): boolean {
    return this.#find(namespace, entry) !== undefined;
  }

  #find(namespace: string, entry: GrantEntry): IdentityGrant | undefined {
    switch (entry.field) {
      case 'clientIDs':
        return this.#index.grantOfClientId(namespace, entry.id);
      case 'resourceIDs':
        return this.#index.grantOfResourceId(namespace, entry.id);
      case 'nodeIdentities':
        return this.#index.grantOfNodeIdentities(namespace);
    }
  }
}
