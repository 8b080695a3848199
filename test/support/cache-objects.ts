import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  Pod,
} from '../../src/cache/index/objects.ts';

/** Objects with unremarkable values; a test sets only the fields that it checks. */

export function createPod(fields: Partial<Pod> = {}): Pod {
  return {
    namespace: 'default',
    name: 'pod',
    resourceVersion: '1',
    uid: `uid-${fields.name ?? 'pod'}`,
    cgroupUid: fields.uid ?? `uid-${fields.name ?? 'pod'}`,
    ips: [],
    labels: {},
    phase: 'Running',
    hostNetwork: false,
    serviceAccount: 'default',
    terminating: false,
    createdAtWallMs: 0,
    ...fields,
  };
}

export function createIdentity(fields: Partial<Identity> = {}): Identity {
  const name = fields.name ?? 'identity';
  return {
    namespace: 'default',
    name,
    resourceVersion: '1',
    uid: `uid-${name}`,
    type: 0,
    clientId: `client-of-${name}`,
    resourceId: '',
    entra: undefined,
    allowedResources: undefined,
    notBeforeWallMs: undefined,
    createdAtWallMs: 0,
    ...fields,
  };
}

export function createBinding(fields: Partial<Binding> = {}): Binding {
  return {
    namespace: 'default',
    name: 'binding',
    resourceVersion: '1',
    uid: `uid-${fields.name ?? 'binding'}`,
    identityName: 'identity',
    selector: 'label',
    serviceAccount: '',
    createdAtWallMs: 0,
    ...fields,
  };
}

export function createException(fields: Partial<Exception> = {}): Exception {
  return {
    namespace: 'default',
    name: 'exception',
    resourceVersion: '1',
    uid: `uid-${fields.name ?? 'exception'}`,
    podLabels: {},
    ...fields,
  };
}

export function createIdentityGrant(fields: Partial<IdentityGrant> = {}): IdentityGrant {
  const name = fields.name ?? 'grant';
  return {
    namespace: '',
    name,
    resourceVersion: '1',
    uid: `uid-${name}`,
    namespaces: [],
    clientIds: [],
    resourceIds: [],
    nodeIdentities: false,
    ...fields,
  };
}
