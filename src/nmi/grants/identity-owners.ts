/**
 * Checks whether an identity belongs to the namespace that names it. Client ids are no secrets, and
 * every author of an `AzureIdentity` can name any of them. So a cluster-scoped `AzureIdentityGrant`
 * has to give the identity to the namespace.
 * 1. Only the id that is sent to upstream counts: a client id before a resource id.
 * 2. No grant is needed for a Secret of the namespace or the service account of a pod: Entra ID
 * itself checks that they belong to the application. The agent's own service account needs one: it
 * is the same for all namespaces. So does a chain that begins with a managed identity, for the
 * application or agent identity that it ends with; the managed identity's own tokens stay here.
 * 3. An exception gives a pod every identity of the node and is namespaced, so it needs a grant.
 */
import type { IdentityGrant } from '../../cache/index/objects.ts';
import type { OwnerIndex } from '../../cache/index/owner-index.ts';
import { kindOf } from '../sources/entra/credentials/kinds.ts';
import { legsOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';

/** `warn`: served, and reported in log, metric and `nmi explain`. */
export type OwnersMode = 'off' | 'warn' | 'enforce';

export type GrantEntry =
  | { readonly field: 'clientIDs' | 'resourceIDs'; readonly id: string }
  | { readonly field: 'nodeIdentities' };

/** What an exception gives. */
const everyOfNode: UpstreamIdentity = { kind: 'unnamed' };

export function entryFor(upstream: UpstreamIdentity): GrantEntry | undefined {
  switch (upstream.kind) {
    case 'client_id':
      return { field: 'clientIDs', id: upstream.value };
    case 'resource_id':
      return { field: 'resourceIDs', id: upstream.value };
    case 'entra':
      return isProven(legsOf(upstream)[0])
        ? undefined
        : { field: 'clientIDs', id: upstream.clientId };
    case 'object_id':
    case 'unnamed':
      return { field: 'nodeIdentities' };
  }
}

/** The namespace has what proves it. */
function isProven(first: UpstreamIdentity): boolean {
  return first.kind === 'entra' && kindOf(first.credential).isOfAgent !== true;
}

export class IdentityOwners {
  readonly mode: OwnersMode;
  readonly #index: OwnerIndex;

  constructor(index: OwnerIndex, mode: OwnersMode) {
    this.#index = index;
    this.mode = mode;
  }

  get hasGrants(): boolean {
    return this.#index.grants.size > 0;
  }

  get generation(): number {
    return this.#index.generation;
  }

  onChange(listener: () => void): () => void {
    return this.#index.onChange(listener);
  }

  /** The entry that a namespace needs and no grant gives it; for an exception without an upstream. */
  lacking(namespace: string, upstream = everyOfNode): GrantEntry | undefined {
    const entry = entryFor(upstream);
    return entry && this.#find(namespace, entry) === undefined ? entry : undefined;
  }

  /** The same in the mode that refuses it. */
  refusing(namespace: string, upstream = everyOfNode): GrantEntry | undefined {
    return this.mode === 'enforce' ? this.lacking(namespace, upstream) : undefined;
  }

  /** The grant that a decision depends on; undefined if it needs none or the mode enforces none. */
  deciding(namespace: string, upstream = everyOfNode): IdentityGrant | undefined {
    const entry = this.mode === 'enforce' ? entryFor(upstream) : undefined;
    return entry && this.#find(namespace, entry);
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
