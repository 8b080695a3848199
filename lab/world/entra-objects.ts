/** The Kubernetes objects of an application of the fake Entra ID. */
import type { EntraApplication } from '../fakes/entra/applications.ts';
import {
  createAzureIdentity,
  createSecret,
  type AzureIdentityOptions,
} from '../fakes/kube/manifests.ts';
import type { World } from './world.ts';

/** An application of the fake Entra ID, and the AzureIdentity and binding of its name. */
export function addApplication(
  world: World,
  application: EntraApplication,
  identity: Partial<AzureIdentityOptions>,
  selector = application.name,
): void {
  const { name, clientId, tenantId } = application;
  world.entra.register(application);
  world.kube.apply(
    createAzureIdentity({
      ...{ name, clientId, tenantId },
      ...identity,
    }),
  );
  world.addBinding(name, name, selector);
}

export function addSecret(
  world: World,
  name: string,
  data: Record<string, string | Uint8Array>,
): void {
  world.kube.apply(createSecret({ name, data }));
}
