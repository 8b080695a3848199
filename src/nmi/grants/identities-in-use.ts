/**
 * The upstream identities that pods of this node may use, now or from their `spec.notBefore` on,
 * worked out when it is asked for.
 */
import type { PodGrants } from '../../cache/index/grant-index.ts';
import type { ObjectName } from '../../cache/index/object-name.ts';
import { hasEnded, type Identity, type Pod } from '../../cache/index/objects.ts';
import { credentialKey, type EntraCredential } from '../sources/entra/credentials/kinds.ts';
import { legsOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';
import { generationOf, type GrantState } from './decide-grant.ts';
import { identityKey } from './cache-key.ts';
import type { UpstreamChoice } from './resolve-upstream.ts';

interface Keys {
  /** Of each token that the pod gets: the identities of its chain, the one that it is of last. */
  readonly chains: readonly (readonly string[])[];
  readonly credentials: readonly string[];
}

/** What names an identity to its pods: the uid of a service account is unknown. */
export interface IdentityOwner extends ObjectName {
  readonly kind: 'AzureIdentity' | 'ServiceAccount';
  readonly uid: string;
}

/** An identity that an owner needs: itself, or an earlier one of its chain. */
export interface OwnedIdentity {
  readonly owner: IdentityOwner;
  /** Key of the identity whose tokens pods get. */
  readonly lastKey: string;
}

interface Wanted {
  readonly generation: number;
  readonly ownersGeneration: number;
  /** By service account. Reused: one object changes at a time, a pod may be bound to hundreds. */
  readonly keysOf: ReadonlyMap<Identity, ReadonlyMap<string, Keys>>;
  readonly granted: ReadonlySet<string>;
  readonly credentials: ReadonlySet<string>;
  readonly hasExcepted: boolean;
  readonly ofAccounts: readonly (readonly [Pod, Keys])[];
  /** Made when it is first needed. */
  owned: Owned | undefined;
}

interface Owned {
  /** By key of the identity. */
  readonly byKey: ReadonlyMap<string, readonly OwnedIdentity[]>;
  readonly uids: ReadonlySet<string>;
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

  /** Those that need the identity with this key. */
  ownersOf(key: string): readonly OwnedIdentity[] {
    return this.#owned().byKey.get(key) ?? [];
  }

  /** Whether pods of this node may use an owner's identity. */
  isOwner(uid: string): boolean {
    return this.#owned().uids.has(uid);
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

  #owned(): Owned {
    const current = this.#current();
    return (current.owned ??= ownedBy(current));
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
    const ofServiceAccounts: (readonly [Pod, Keys])[] = [];
    let hasExcepted = false;
    for (const pod of pods.all()) {
      if (hasEnded(pod)) continue;
      const ofPod = grants.grantsOf(pod.uid);
      if (this.#isNodes(pod, ofPod)) hasExcepted = true;
      if (ofPod?.kind === 'no-label') ofServiceAccounts.push([pod, this.#keysOfAccount(pod)]);
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
    all.push(...ofServiceAccounts.map(([, keys]) => keys));
    return {
      generation,
      ownersGeneration,
      keysOf,
      ofAccounts: ofServiceAccounts,
      owned: undefined,
      granted: new Set(all.flatMap(({ chains }) => chains.flat())),
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

const noKeys: Keys = { chains: [], credentials: [] };

function keysOfChoice(choice: UpstreamChoice): Keys {
  if (choice.kind !== 'upstream') return noKeys;
  const chains = [choice.upstream, ...choice.auxiliary].map(legsOf);
  return {
    chains: chains.map((legs) => legs.map(identityKey)),
    credentials: chains
      .flat()
      .flatMap((leg) => (leg.kind === 'entra' ? credentialKey(leg.credential) : [])),
  };
}

function ownedBy({ keysOf, ofAccounts }: Pick<Wanted, 'keysOf' | 'ofAccounts'>): Owned {
  const owned = new Map<string, Map<string, OwnedIdentity>>();
  const uids = new Set<string>();
  const add = (owner: IdentityOwner, { chains }: Keys): void => {
    uids.add(owner.uid);
    for (const chain of chains) {
      const lastKey = chain.at(-1) ?? '';
      for (const key of chain) {
        const known = owned.get(key) ?? new Map<string, OwnedIdentity>();
        owned.set(key, known.set(`${owner.uid}\t${lastKey}`, { owner, lastKey }));
      }
    }
  };
  for (const [{ namespace, name, uid }, ofPods] of keysOf) {
    const owner = { kind: 'AzureIdentity', namespace, name, uid } as const;
    for (const keys of ofPods.values()) add(owner, keys);
  }
  for (const [{ namespace, serviceAccount: name }, keys] of ofAccounts) {
    add({ kind: 'ServiceAccount', namespace, name, uid: `${namespace}/${name}` }, keys);
  }
  const byKey = new Map([...owned].map(([key, known]) => [key, [...known.values()]]));
  return { byKey, uids };
}
