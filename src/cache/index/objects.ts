/**
 * The Kubernetes objects the agent knows, trimmed on arrival to the fields it uses. All are plain
 * readonly data; the store that holds one owns it and nobody mutates it.
 */

/** What names one stored object. `uid` tells a re-created object from its predecessor. */
export interface ObjectRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** What a watch delivered and a store keeps. */
export interface StoredObject extends ObjectRef {
  /**
   * The version of the object in which the fields that are kept of it last changed; later versions
   * that change none of them are not stored. It takes no part in comparisons.
   */
  readonly resourceVersion: string;
}

export type PodPhase = 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';

export interface Pod extends StoredObject {
  /** What the kubelet calls its cgroup by: the uid, but for a static pod the hash of its file. */
  readonly cgroupUid: string;
  /** Every entry of `status.podIPs` (or `status.podIP`), as written by the kubelet. */
  readonly ips: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly phase: PodPhase;
  readonly hostNetwork: boolean;
  readonly serviceAccount: string;
  /** `metadata.deletionTimestamp` is set; the pod may still run its grace period. */
  readonly terminating: boolean;
  readonly createdAtWallMs: number;
}

/** All its containers have terminated, and none starts again. */
export function hasEnded({ phase }: Pick<Pod, 'phase'>): boolean {
  return phase === 'Succeeded' || phase === 'Failed';
}

/** `AzureIdentity`. Strings the object does not carry are empty. */
export interface Identity extends StoredObject {
  /** 0 user-assigned, 1 secret, 2 certificate, 3 federated; any other number is refused later. */
  readonly type: number;
  readonly clientId: string;
  readonly resourceId: string;
  /** Undefined for type 0, of which a cluster has thousands. */
  readonly entra: EntraSettings | undefined;
  /** `spec.allowedResources`, each by `normaliseResource`; undefined means anything, never empty. */
  readonly allowedResources: readonly string[] | undefined;
  readonly createdAtWallMs: number;
}

/** What identities of type 1 to 3 say beyond their client id. Absent strings are empty. */
export interface EntraSettings {
  readonly tenantId: string;
  /** Further tenants that the answer carries tokens of; type 1 only. */
  readonly auxiliaryTenantIds: readonly string[];
  /** `spec.adEndpoint`: the authority; empty means that of the node's cloud. */
  readonly adEndpoint: string;
  /** `spec.clientPassword`: the Secret of types 1 and 2. Both parts are empty when absent. */
  readonly secretNamespace: string;
  readonly secretName: string;
  /** `spec.federation`: whose service account is the subject of type 3; empty means `pod`. */
  readonly federation: string;
}

/** `AzureIdentityBinding`. */
export interface Binding extends StoredObject {
  readonly identityName: string;
  readonly selector: string;
  /** `spec.serviceAccount`: it is for pods under this one only; empty means under any. */
  readonly serviceAccount: string;
  readonly createdAtWallMs: number;
}

/** `AzurePodIdentityException`. */
export interface Exception extends StoredObject {
  readonly podLabels: Readonly<Record<string, string>>;
}

/** `AzureIdentityGrant`: of the cluster, so its namespace is empty. Absent lists are empty. */
export interface IdentityGrant extends StoredObject {
  /** Exact names; `*` is every namespace. */
  readonly namespaces: readonly string[];
  /** `spec.clientIDs`, each by `normaliseClientId`. */
  readonly clientIds: readonly string[];
  /** `spec.resourceIDs`, each by `normaliseResourceId`. */
  readonly resourceIds: readonly string[];
  /** Pods of these namespaces that an exception names may have what the node itself has. */
  readonly nodeIdentities: boolean;
}

/**
 * Where a watch puts what it learns. `replace` is one atomic step: no reader sees an empty or
 * half-filled store. `remove` ignores a uid that is not the stored one (a late delete of a
 * re-created object).
 */
export interface ObjectStore<T extends ObjectRef> {
  /** Objects in it. */
  readonly size: number;
  replace(items: readonly T[]): void;
  upsert(item: T): void;
  remove(ref: ObjectRef): void;
}
