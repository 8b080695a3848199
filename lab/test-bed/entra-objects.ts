/** The Kubernetes objects of an application of the fake Entra ID. */
import type { ObjectName } from '../../src/cache/index/object-name.ts';
import { createEntraApplication, type EntraApplication } from '../fakes/entra/applications.ts';
import {
  createAzureIdentity,
  createSecret,
  type AzureIdentityOptions,
} from '../fakes/kube/manifests.ts';
import { fakeIssuer } from '../fakes/kube/tokens.ts';
import { bindIdentity } from './services.ts';
import type { TestBed } from './test-bed.ts';

/** An application of the fake Entra ID, and an AzureIdentity and a binding with its name. */
export function addApplication(
  testBed: TestBed,
  application: EntraApplication,
  identity: Partial<AzureIdentityOptions>,
  selector = application.name,
): void {
  const { name, clientId, tenantId } = application;
  testBed.entra.register(application);
  testBed.kube.apply(
    createAzureIdentity({
      name,
      clientId,
      tenantId,
      ...identity,
    }),
  );
  testBed.addBinding(name, name, selector);
}

/** A managed identity that is bound to this cluster, and an AzureIdentity and a binding with its name. */
export function addBoundIdentity(
  testBed: TestBed,
  name: string,
  selector = name,
): EntraApplication {
  const identity = createEntraApplication(name);
  const application = { ...identity, ...bindIdentity(testBed.environment, identity) };
  addApplication(testBed, application, { type: 3, federation: 'binding' }, selector);
  return application;
}

/** Credentials of an application that trusts the tokens of a service account of this cluster. */
export function federatedTo(account: ObjectName): Pick<EntraApplication, 'federatedCredentials'> {
  const subject = `system:serviceaccount:${account.namespace}:${account.name}`;
  const audience = 'api://AzureADTokenExchange';
  return { federatedCredentials: [{ issuer: fakeIssuer, subject, audience }] };
}

export function addSecret(
  testBed: TestBed,
  name: string,
  data: Record<string, string | Uint8Array>,
): void {
  testBed.kube.apply(createSecret({ name, data }));
}
