/**
 * The Kubernetes objects that the agent stores, trimmed on arrival to the fields that it uses. All
 * are plain readonly data and never mutated.
 */

/**
 * Reference to one stored object. `uid` differs between a re-created object and its predecessor.
 */
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
  /** The id in the name of the pod's cgroup: the UID, or for a static pod the hash of its file. */
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

/** Whether all containers of the pod have terminated for good. */
export function hasEnded({ phase }: Pick<Pod, 'phase'>): boolean {
  return phase === 'Succeeded' || phase === 'Failed';
}

/** `AzureIdentity`. Absent strings are empty. */
export interface Identity extends StoredObject {
  /**
   * 0 user-assigned, 1 secret, 2 certificate, 3 federated, 4 chain; a request for any other type is
   * refused.
   */
  readonly type: number;
  /** Of the identity whose tokens pods get: in a chain the last one. */
  readonly clientId: string;
  /** Empty for a chain, whose managed identity is only its first one. */
  readonly resourceId: string;
  /** Undefined for type 0, to save memory: a cluster has thousands of them. */
  readonly entra: EntraSettings | undefined;
  /** `spec.allowedResources`, each by `normaliseResource`; undefined allows any. Never empty. */
  readonly allowedResources: readonly string[] | undefined;
  /** `spec.notBefore`: tokens from before this time are not used; undefined for all. */
  readonly notBeforeWallMs: number | undefined;
  readonly createdAtWallMs: number;
}

/** Further fields of identities of types 1 to 4. Absent strings are empty. */
export interface EntraSettings {
  readonly tenantId: string;
  /** Further tenants whose tokens the response contains; type 1 only. */
  readonly auxiliaryTenantIds: readonly string[];
  /** `spec.adEndpoint`: the authority; empty means the authority of the node's cloud. */
  readonly adEndpoint: string;
  /** `spec.clientPassword`: the Secret of types 1 and 2. Both parts are empty when absent. */
  readonly secretNamespace: string;
  readonly secretName: string;
  /**
   * `spec.federation`: owner of the service account that is the subject of type 3; empty means
   * `pod`.
   */
  readonly federation: string;
  /** Type 4 alone; `tenantId` is that of its application. */
  readonly chain?: ChainSettings;
}

/** Absent strings are empty. */
export interface ChainSettings {
  /** Of the managed identity. */
  readonly clientId: string;
  readonly resourceId: string;
  readonly applicationId: string;
  readonly agentIdentity: string;
}

/** `AzureIdentityBinding`. */
export interface Binding extends StoredObject {
  readonly identityName: string;
  readonly selector: string;
  /**
   * `spec.serviceAccount`: the binding applies to pods of this service account only; empty means
   * any.
   */
  readonly serviceAccount: string;
  readonly createdAtWallMs: number;
}

/** `AzurePodIdentityException`. */
export interface Exception extends StoredObject {
  readonly podLabels: Readonly<Record<string, string>>;
}

/**
 * `AzureIdentityGrant`, a cluster-scoped object: its namespace is empty. Absent lists are empty.
 */
export interface IdentityGrant extends StoredObject {
  /** Exact names; `*` is every namespace. */
  readonly namespaces: readonly string[];
  /** `spec.clientIDs`, each by `normaliseClientId`. */
  readonly clientIds: readonly string[];
  /** `spec.resourceIDs`, each by `normaliseResourceId`. */
  readonly resourceIds: readonly string[];
  /** Pods of these namespaces that match an exception may use the identities of the node. */
  readonly nodeIdentities: boolean;
}

/**
 * The store that a watch writes to. `replace` is one atomic step: no reader sees an empty or
 * half-filled store. `remove` ignores a UID other than the stored one (a late delete event of a
 * predecessor).
 */
export interface ObjectStore<T extends ObjectRef> {
  readonly size: number;
  replace(items: readonly T[]): void;
  upsert(item: T): void;
  remove(ref: ObjectRef): void;
}
