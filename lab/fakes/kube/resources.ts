/** The resource types of the fake Kubernetes API, and how request paths name them. Pure. */

/** A Kubernetes object as stored: never changed in place, replaced by every write. */
export interface FakeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: FakeMetadata;
  readonly [field: string]: unknown;
}

export interface FakeMetadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly creationTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

/** Reference to one object; the namespace defaults to `default`. */
export interface FakeRef {
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
}

export interface FakeResource {
  /** Empty for the core group. */
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Fields that a selector may use besides `metadata.name` and `metadata.namespace`. */
  readonly selectable: readonly string[];
}

const crdGroup = 'aadpodidentity.k8s.io';

function core(plural: string, kind: string, namespaced: boolean, selectable: string[] = []) {
  return { group: '', plural, kind, namespaced, selectable } as const;
}
function rbac(plural: string, kind: string) {
  const group = 'rbac.authorization.k8s.io';
  return { group, plural, kind, namespaced: false, selectable: [] } as const;
}
function custom(plural: string, kind: string) {
  return { group: crdGroup, plural, kind, namespaced: true, selectable: [] } as const;
}

export const fakeResources: readonly FakeResource[] = [
  core('pods', 'Pod', true, [
    'spec.nodeName',
    'spec.serviceAccountName',
    'status.phase',
    'status.podIP',
  ]),
  core('secrets', 'Secret', true, ['type']),
  core('serviceaccounts', 'ServiceAccount', true),
  core('namespaces', 'Namespace', false),
  core('nodes', 'Node', false),
  {
    ...{ group: 'apps', plural: 'daemonsets', kind: 'DaemonSet', namespaced: true },
    selectable: [],
  },
  rbac('clusterroles', 'ClusterRole'),
  rbac('clusterrolebindings', 'ClusterRoleBinding'),
  custom('azureidentities', 'AzureIdentity'),
  custom('azureidentitybindings', 'AzureIdentityBinding'),
  custom('azurepodidentityexceptions', 'AzurePodIdentityException'),
  { ...custom('azureidentitygrants', 'AzureIdentityGrant'), namespaced: false },
  custom('azureassignedidentities', 'AzureAssignedIdentity'),
  {
    group: 'events.k8s.io',
    plural: 'events',
    kind: 'Event',
    namespaced: true,
    selectable: ['regarding.name', 'reason'],
  },
];

export function apiVersionOf(resource: FakeResource): string {
  return resource.group === '' ? 'v1' : `${resource.group}/v1`;
}

/** The name of a resource in messages: `pods`, `azureidentities.aadpodidentity.k8s.io`. */
export function qualifiedName({ plural, group }: FakeResource): string {
  return group === '' ? plural : `${plural}.${group}`;
}

export function resourceOfKind(kind: string): FakeResource | undefined {
  return fakeResources.find((resource) => resource.kind === kind);
}

export type FakeRoute =
  | {
      readonly kind: 'collection';
      readonly resource: FakeResource;
      /** Empty for all namespaces, and for cluster-scoped resources. */
      readonly namespace: string;
    }
  | {
      readonly kind: 'object';
      readonly resource: FakeResource;
      readonly namespace: string;
      readonly name: string;
    }
  | { readonly kind: 'token_request'; readonly namespace: string; readonly name: string }
  | { readonly kind: 'self_review' }
  | { readonly kind: 'issuer'; readonly document: 'configuration' | 'keys' }
  /** `/version`, `/api`, `/apis` and the lists of resources, which kubectl requests first. */
  | { readonly kind: 'discovery'; readonly document: unknown }
  | { readonly kind: 'none' };

/** `path` has no query. */
export function routeOf(path: string): FakeRoute {
  const parts = path.split('/').filter((part) => part !== '');
  const document = discoveryOf(parts.join('/'));
  if (document !== undefined) return { kind: 'discovery', document };
  const [root, ...rest] = parts;
  switch (parts.join('/')) {
    case '.well-known/openid-configuration':
      return { kind: 'issuer', document: 'configuration' };
    case 'openid/v1/jwks':
      return { kind: 'issuer', document: 'keys' };
    case 'apis/authentication.k8s.io/v1/selfsubjectreviews':
      return { kind: 'self_review' };
  }
  if (root === 'api' && rest[0] === 'v1') return routeIn('', rest.slice(1));
  if (root === 'apis' && rest[1] === 'v1') return routeIn(rest[0] ?? '', rest.slice(2));
  return { kind: 'none' };
}

function routeIn(group: string, parts: readonly string[]): FakeRoute {
  // `namespaces/x/pods` names pods; `namespaces/x` names the namespace itself.
  const scoped = parts[0] === 'namespaces' && parts.length > 2;
  const [plural = '', name, ...beyond] = scoped ? parts.slice(2) : parts;
  const namespace = scoped ? (parts[1] ?? '') : '';
  const resource = fakeResources.find(
    (candidate) => candidate.group === group && candidate.plural === plural,
  );
  if (resource === undefined || (scoped && !resource.namespaced)) return { kind: 'none' };
  if (name === undefined) return { kind: 'collection', resource, namespace };
  if (scoped && resource.kind === 'ServiceAccount' && beyond.join('/') === 'token') {
    return { kind: 'token_request', namespace, name };
  }
  // kubectl writes an object's status to a separate path; here it is part of the object.
  if (beyond.length > 1 || (beyond.length === 1 && beyond[0] !== 'status')) return { kind: 'none' };
  if (resource.namespaced && !scoped) return { kind: 'none' };
  return { kind: 'object', resource, namespace, name };
}

function discoveryOf(path: string): unknown {
  const groupVersion = { groupVersion: `${crdGroup}/v1`, version: 'v1' };
  switch (path) {
    case 'version':
      return { major: '1', minor: '37', gitVersion: 'v1.37.0+fake', platform: 'linux/amd64' };
    case 'api':
      return { kind: 'APIVersions', versions: ['v1'] };
    case 'apis':
      return {
        kind: 'APIGroupList',
        apiVersion: 'v1',
        groups: [{ name: crdGroup, versions: [groupVersion], preferredVersion: groupVersion }],
      };
    case 'api/v1':
      return resourceList('v1', '');
    case `apis/${crdGroup}/v1`:
      return resourceList(`${crdGroup}/v1`, crdGroup);
    default:
      return undefined;
  }
}

function resourceList(groupVersion: string, group: string): unknown {
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion,
    resources: fakeResources
      .filter((resource) => resource.group === group)
      .flatMap(({ plural, kind, namespaced }) => [
        {
          name: plural,
          singularName: kind.toLowerCase(),
          namespaced,
          kind,
          verbs: ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'],
        },
        {
          name: `${plural}/status`,
          singularName: '',
          namespaced,
          kind,
          verbs: ['get', 'patch', 'update'],
        },
      ]),
  };
}
