/** An identity of Entra ID itself, with a client secret, that the first asking pod may have too. */
import {
  createEntraApplication,
  type EntraApplication,
} from '../../lab/fakes/entra/applications.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createSecret,
} from '../../lab/fakes/kube/manifests.ts';
import type { Services } from '../../lab/test-bed/services.ts';

export const secretValue = 'bench-client-secret';

export function addSecretIdentity({ kube, entra }: Services, label = 'bench'): EntraApplication {
  const application = createEntraApplication(label, { secrets: [{ value: secretValue }] });
  entra.register(application);
  const { clientId, tenantId } = application;
  const clientPassword = { name: `${label}-secret` };
  kube.apply(createSecret({ ...clientPassword, data: { clientSecret: secretValue } }));
  kube.apply(createAzureIdentity({ name: label, type: 1, clientId, tenantId, clientPassword }));
  kube.apply(createAzureIdentityBinding({ name: label, azureIdentity: label, selector: 'ask-0' }));
  return application;
}
