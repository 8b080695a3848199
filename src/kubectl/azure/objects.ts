/** Objects of `aadpodidentity.k8s.io`, as they are written into a cluster. Pure. */

const apiVersion = 'aadpodidentity.k8s.io/v1';

export interface IdentitySpec {
  readonly type: number;
  readonly clientID: string;
  readonly resourceID?: string;
  readonly tenantID?: string;
  readonly clientPassword?: { readonly name: string };
}

interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: object;
  readonly spec: object;
}

export function identityObject(namespace: string, name: string, spec: IdentitySpec): KubeObject {
  return { apiVersion, kind: 'AzureIdentity', metadata: { name, namespace }, spec };
}

/** @param serviceAccount limits the binding to pods of this service account; empty is any. */
export function bindingObject(
  namespace: string,
  name: string,
  azureIdentity: string,
  selector: string,
  serviceAccount: string,
): KubeObject {
  const limit = serviceAccount === '' ? {} : { serviceAccount };
  const spec = { azureIdentity, selector, ...limit };
  return { apiVersion, kind: 'AzureIdentityBinding', metadata: { name, namespace }, spec };
}

export function exceptionObject(
  namespace: string,
  name: string,
  podLabels: Readonly<Record<string, string>>,
): KubeObject {
  return {
    apiVersion,
    kind: 'AzurePodIdentityException',
    metadata: { name, namespace },
    spec: { podLabels },
  };
}
