/**
 * The upstream identities that pods of this node may use, now or from their `spec.notBefore` on,
 * worked out when it is asked for.
 */
import type { PodGrants } from '../../cache/index/grant-index.ts';
import { hasEnded, type Identity, type Pod } from '../../cache/index/objects.ts';
import { credentialKey, type EntraCredential } from '../sources/entra/credentials/kinds.ts';
import { legsOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import { generationOf, type GrantState } from './decide-grant.ts';
import { identityKey } from './cache-key.ts';
import type { UpstreamChoice } from './resolve-upstream.ts';

interface Keys {
  readonly granted: readonly string[];
  readonly credentials: readonly string[];
}

interface Wanted {
  readonly generation: number;
  readonly ownersGeneration: number;
  /** By service account. Reused: one object changes at a time, a pod may be bound to hundreds. */
  readonly keysOf: ReadonlyMap<Identity, ReadonlyMap<string, Keys>>;
  readonly granted: ReadonlySet<string>;
  readonly credentials: ReadonlySet<string>;
  readonly hasExcepted: boolean;
}

export type DemandState = Pick<
  GrantState,
  'pods' | 'grants' | 'owners' | 'upstreams' | 'workloadIdentities'
>;

export class IdentitiesInUse {
  readonly #clusterState: DemandState;
  #wanted: Wanted | undefined;

  constructor(clusterState: DemandState) {
    this.#clusterState = clusterState;
  }

  isGranted(identity: UpstreamIdentity): boolean {
    return this.#current().granted.has(identityKey(identity));
  }

  isCredentialNeeded(credential: EntraCredential): boolean {
    return this.#current().credentials.has(credentialKey(credential));
  }

  /** There is a live pod that may request any identity by name. */
  hasExcepted(): boolean {
    return this.#current().hasExcepted;
  }

  /** Calls `listener` when any of these may have changed. @returns how to unsubscribe. */
  onChange(listener: () => void): () => void {
    const { grants, owners, workloadIdentities } = this.#clusterState;
    const offs = [
      grants.onChange(listener),
      owners.onChange(listener),
      workloadIdentities?.onChange(listener),
    ];
    return () => {
      for (const off of offs) off?.();
    };
  }

  #current(): Wanted {
    const generation = generationOf(this.#clusterState);
    if (this.#wanted?.generation !== generation) this.#wanted = this.#work(generation);
    return this.#wanted;
  }

  #work(generation: number): Wanted {
    const { pods, grants, owners } = this.#clusterState;
    const ownersGeneration = owners.generation;
    const before = this.#wanted?.ownersGeneration === ownersGeneration ? this.#wanted : undefined;
    const keysOf = new Map<Identity, Map<string, Keys>>();
    const all: Keys[] = [];
    let hasExcepted = false;
    for (const pod of pods.all()) {
      if (hasEnded(pod)) continue;
      const ofPod = grants.grantsOf(pod.uid);
      if (this.#isNodes(pod, ofPod)) hasExcepted = true;
      if (ofPod?.kind === 'no-label') all.push(this.#keysOfAccount(pod));
      if (ofPod?.kind !== 'bound') continue;
      const { serviceAccount } = pod;
      for (const identity of ofPod.identities) {
        const ofAccounts = keysOf.get(identity) ?? new Map<string, Keys>();
        if (ofAccounts.has(serviceAccount)) continue;
        const known = before?.keysOf.get(identity)?.get(serviceAccount);
        const keys = known ?? this.#keysOfIdentity(identity, pod);
        keysOf.set(identity, ofAccounts.set(serviceAccount, keys));
        all.push(keys);
      }
    }
    return {
      generation,
      ownersGeneration,
      keysOf,
      granted: new Set(all.flatMap(({ granted }) => granted)),
      credentials: new Set(all.flatMap(({ credentials }) => credentials)),
      hasExcepted,
    };
  }

  #isNodes({ namespace, hostNetwork }: Pod, grants: PodGrants | undefined): boolean {
    const { owners } = this.#clusterState;
    if (grants?.kind === 'no-label') return hostNetwork;
    if (grants?.kind !== 'exception') return false;
    return owners.refusing(namespace) === undefined;
  }

  #keysOfIdentity(identity: Identity, pod: Pod): Keys {
    const { owners, upstreams } = this.#clusterState;
    const choice = upstreams.onceValid(identity, pod);
    if (choice.kind !== 'upstream') return noKeys;
    const isOwned = owners.refusing(pod.namespace, choice.upstream) === undefined;
    return isOwned ? keysOfChoice(choice) : noKeys;
  }

  #keysOfAccount(pod: Pod): Keys {
    const { upstreams, workloadIdentities } = this.#clusterState;
    const choice = workloadIdentities?.lastOf(pod);
    if (choice?.kind !== 'application') return noKeys;
    return keysOfChoice(upstreams.ofServiceAccount(pod, choice.clientId, choice.tenantId));
  }
}

const noKeys: Keys = { granted: [], credentials: [] };

function keysOfChoice(choice: UpstreamChoice): Keys {
  if (choice.kind !== 'upstream') return noKeys;
  const legs = [choice.upstream, ...choice.auxiliary].flatMap(legsOf);
  return {
    granted: legs.map(identityKey),
    credentials: legs.flatMap((leg) => (leg.kind === 'entra' ? credentialKey(leg.credential) : [])),
  };
}
