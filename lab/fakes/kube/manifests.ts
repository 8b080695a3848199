/** Kubernetes objects as the API server stores them. */
import { randomUUID } from 'node:crypto';

export interface KubeMetadata {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly creationTimestamp: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
}

interface ObjectOptions {
  readonly name: string;
  /** Default `default`. */
  readonly namespace?: string;
  /** Default: a new one. */
  readonly uid?: string;
  /** Default: now. */
  readonly createdAtWallMs?: number;
}

export interface PodManifest {
  readonly apiVersion: 'v1';
  readonly kind: 'Pod';
  readonly metadata: KubeMetadata;
  readonly spec: {
    readonly nodeName: string;
    readonly serviceAccountName: string;
    readonly hostNetwork?: true;
    readonly containers: readonly { readonly name: string; readonly image: string }[];
  };
  readonly status: {
    readonly phase: string;
    readonly hostIP: string;
    readonly podIP?: string;
    readonly podIPs?: readonly { readonly ip: string }[];
  };
}

export interface PodOptions extends ObjectOptions {
  readonly nodeName: string;
  /** IPv4 first; empty while the pod has no address yet. */
  readonly ips: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** The label `aadpodidbinding`. */
  readonly binding?: string;
  /** Default `Running`. */
  readonly phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
  readonly hostNetwork?: boolean;
  /** Default `default`. */
  readonly serviceAccount?: string;
  /** Marked for deletion, in its grace period. */
  readonly terminating?: boolean;
  /** Default `10.224.0.4`. */
  readonly hostIp?: string;
}

export function createPodManifest(options: PodOptions): PodManifest {
  const [podIp] = options.ips;
  const labels = {
    ...options.labels,
    ...(options.binding === undefined ? {} : { aadpodidbinding: options.binding }),
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...createMetadata(options),
      ...(Object.keys(labels).length === 0 ? {} : { labels }),
      ...(options.terminating === true
        ? { deletionTimestamp: renderTime(Date.now() + 30_000), deletionGracePeriodSeconds: 30 }
        : {}),
    },
    spec: {
      nodeName: options.nodeName,
      serviceAccountName: options.serviceAccount ?? 'default',
      ...(options.hostNetwork === true ? { hostNetwork: true } : {}),
      containers: [{ name: 'main', image: 'registry.example/lab:1' }],
    },
    status: {
      phase: options.phase ?? 'Running',
      hostIP: options.hostIp ?? '10.224.0.4',
      ...(podIp === undefined ? {} : { podIP: podIp, podIPs: options.ips.map((ip) => ({ ip })) }),
    },
  };
}

export interface SecretManifest {
  readonly apiVersion: 'v1';
  readonly kind: 'Secret';
  readonly metadata: KubeMetadata;
  readonly type: 'Opaque';
  /** Base64. */
  readonly data: Readonly<Record<string, string>>;
}

export interface SecretOptions extends ObjectOptions {
  /** Strings are stored as UTF-8. */
  readonly data: Readonly<Record<string, string | Uint8Array>>;
}

export function createSecret(options: SecretOptions): SecretManifest {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: createMetadata(options),
    type: 'Opaque',
    data: Object.fromEntries(
      Object.entries(options.data).map(([key, value]) => [
        key,
        Buffer.from(value).toString('base64'),
      ]),
    ),
  };
}

export interface ServiceAccountManifest {
  readonly apiVersion: 'v1';
  readonly kind: 'ServiceAccount';
  readonly metadata: KubeMetadata;
}

export interface ServiceAccountOptions extends ObjectOptions {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export function createServiceAccount(options: ServiceAccountOptions): ServiceAccountManifest {
  return {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: {
      ...createMetadata(options),
      ...(options.labels === undefined ? {} : { labels: options.labels }),
      ...(options.annotations === undefined ? {} : { annotations: options.annotations }),
    },
  };
}

/** The rights of a service account on a managed identity with an identity binding of AKS. */
export function createIdentityUse(
  clientId: string,
  account: { readonly namespace: string; readonly name: string },
): readonly object[] {
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  const metadata = { name: `use-mi-${clientId}` };
  const resources = [clientId];
  const rule = { apiGroups: ['cid.wi.aks.azure.com'], resources, verbs: ['use-managed-identity'] };
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', ...metadata };
  const subjects = [{ kind: 'ServiceAccount', ...account }];
  const name = `${metadata.name}-${account.namespace}-${account.name}`;
  return [
    { apiVersion, kind: 'ClusterRole', metadata, rules: [rule] },
    { apiVersion, kind: 'ClusterRoleBinding', metadata: { name }, roleRef, subjects },
  ];
}

interface CustomObject<Kind extends string, Spec> {
  readonly apiVersion: 'aadpodidentity.k8s.io/v1';
  readonly kind: Kind;
  readonly metadata: KubeMetadata;
  readonly spec: Spec;
}

export type AzureIdentityManifest = CustomObject<
  'AzureIdentity',
  {
    readonly type: number;
    readonly clientID: string;
    readonly resourceID: string;
    readonly tenantID?: string;
    readonly clientPassword?: { readonly name: string; readonly namespace?: string };
    readonly auxiliaryTenantIDs?: readonly string[];
    readonly adEndpoint?: string;
    readonly federation?: string;
    readonly application?: AzureApplication;
    readonly agentIdentity?: string;
  }
>;

export interface AzureApplication {
  readonly tenantID: string;
  readonly clientID: string;
}

export interface AzureIdentityOptions extends ObjectOptions {
  /** 0 (default) user-assigned, 1 secret, 2 certificate, 3 federated, 4 chain. */
  readonly type?: number;
  /** Default: empty. */
  readonly clientId?: string;
  /** Default: empty. */
  readonly resourceId?: string;
  /** Types 1 to 3, as the rest. */
  readonly tenantId?: string;
  /** Reference to a Secret; the namespace defaults to the identity's. */
  readonly clientPassword?: { readonly name: string; readonly namespace?: string };
  readonly auxiliaryTenantIds?: readonly string[];
  readonly adEndpoint?: string;
  readonly federation?: string;
  /** Type 4. */
  readonly application?: AzureApplication;
  readonly agentIdentity?: string;
}

export function createAzureIdentity(options: AzureIdentityOptions): AzureIdentityManifest {
  const { tenantId, clientPassword, auxiliaryTenantIds, adEndpoint, federation } = options;
  const { application, agentIdentity } = options;
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentity',
    metadata: createMetadata(options),
    spec: {
      type: options.type ?? 0,
      clientID: options.clientId ?? '',
      resourceID: options.resourceId ?? '',
      ...(tenantId === undefined ? {} : { tenantID: tenantId }),
      ...(clientPassword === undefined ? {} : { clientPassword }),
      ...(auxiliaryTenantIds === undefined ? {} : { auxiliaryTenantIDs: auxiliaryTenantIds }),
      ...(adEndpoint === undefined ? {} : { adEndpoint }),
      ...(federation === undefined ? {} : { federation }),
      ...(application === undefined ? {} : { application }),
      ...(agentIdentity === undefined ? {} : { agentIdentity }),
    },
  };
}

export type AzureIdentityBindingManifest = CustomObject<
  'AzureIdentityBinding',
  { readonly azureIdentity: string; readonly selector: string }
>;

export interface AzureIdentityBindingOptions extends ObjectOptions {
  /** The name of an identity in the same namespace. */
  readonly azureIdentity: string;
  readonly selector: string;
}

export function createAzureIdentityBinding(
  options: AzureIdentityBindingOptions,
): AzureIdentityBindingManifest {
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentityBinding',
    metadata: createMetadata(options),
    spec: { azureIdentity: options.azureIdentity, selector: options.selector },
  };
}

export type AzurePodIdentityExceptionManifest = CustomObject<
  'AzurePodIdentityException',
  { readonly podLabels: Readonly<Record<string, string>> }
>;

export interface AzurePodIdentityExceptionOptions extends ObjectOptions {
  readonly podLabels: Readonly<Record<string, string>>;
}

export function createAzurePodIdentityException(
  options: AzurePodIdentityExceptionOptions,
): AzurePodIdentityExceptionManifest {
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzurePodIdentityException',
    metadata: createMetadata(options),
    spec: { podLabels: options.podLabels },
  };
}

export interface AzureIdentityGrantSpec {
  /** Exact names, or `*`. */
  readonly namespaces: readonly string[];
  readonly clientIDs?: readonly string[];
  readonly resourceIDs?: readonly string[];
  readonly nodeIdentities?: boolean;
}

/** Cluster-scoped: it has no namespace. */
export function createAzureIdentityGrant(name: string, spec: AzureIdentityGrantSpec): object {
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentityGrant',
    metadata: { name },
    spec,
  };
}

function createMetadata(options: ObjectOptions): KubeMetadata {
  return {
    name: options.name,
    namespace: options.namespace ?? 'default',
    uid: options.uid ?? randomUUID(),
    creationTimestamp: renderTime(options.createdAtWallMs ?? Date.now()),
  };
}

/** Kubernetes stores whole seconds. */
function renderTime(wallMs: number): string {
  return new Date(wallMs).toISOString().replace(/\.\d{3}Z$/, 'Z');
}
