/**
 * Which upstream identities the pods of this node may have now: worked out from the grants when
 * asked after a change, over at most the pods of one node, and never when a pod or binding changes.
 */
import type { GrantIndex } from '../cache/grant-index.ts';
import type { PodIndex } from '../cache/pod-index.ts';
import { upstreamOf } from './authorise.ts';
import type { UpstreamIdentity } from './sources/source.ts';
import type { IdentityDemand } from './token-broker.ts';
import { identityKey } from './upstream-key.ts';

interface Wanted {
  readonly generation: number;
  readonly granted: ReadonlySet<string>;
  readonly hasExcepted: boolean;
}

export class WantedIdentities implements IdentityDemand {
  readonly #pods: PodIndex;
  readonly #grants: GrantIndex;
  #wanted: Wanted = { generation: -1, granted: new Set(), hasExcepted: false };

  constructor(pods: PodIndex, grants: GrantIndex) {
    this.#pods = pods;
    this.#grants = grants;
  }

  isGranted(identity: UpstreamIdentity): boolean {
    return this.#current().granted.has(identityKey(identity));
  }

  hasExcepted(): boolean {
    return this.#current().hasExcepted;
  }

  onChange(listener: () => void): () => void {
    return this.#grants.onChange(listener);
  }

  #current(): Wanted {
    if (this.#wanted.generation !== this.#grants.generation) this.#wanted = this.#work();
    return this.#wanted;
  }

  #work(): Wanted {
    const granted = new Set<string>();
    let hasExcepted = false;
    for (const pod of this.#pods.all()) {
      if (pod.phase === 'Succeeded' || pod.phase === 'Failed') continue;
      const grants = this.#grants.grantsOf(pod.uid);
      if (grants?.kind === 'exception') hasExcepted = true;
      if (grants?.kind !== 'bound') continue;
      for (const identity of grants.identities) {
        const upstream = upstreamOf(identity);
        if (upstream !== undefined) granted.add(identityKey(upstream));
      }
    }
    return { generation: this.#grants.generation, granted, hasExcepted };
  }
}
