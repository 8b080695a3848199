/** The messages between the tests and the process of Azure's side. */
import type { ServerCertificate } from '../../../lab/fakes/authority.ts';
import type { EntraApplication } from '../../../lab/fakes/entra/applications.ts';
import type { EntraRequest } from '../../../lab/fakes/entra/fake-entra.ts';
import type { ImdsRequest } from '../../../lab/fakes/imds/fake-imds.ts';
import type { LabIdentity } from '../../../lab/fakes/token.ts';
import type { ApiAccess } from '../../cluster/support/api.ts';

export interface AzureStart {
  readonly identities: readonly LabIdentity[];
  readonly applications: readonly EntraApplication[];
  readonly entraTls: ServerCertificate;
  /** Where the keys of the cluster's issuer are read. */
  readonly api: ApiAccess;
  readonly issuer: string;
}

export interface AzureReport {
  readonly imds: readonly ImdsRequest[];
  readonly entra: readonly EntraRequest[];
}

export type ToAzure = { readonly start: AzureStart } | { readonly take: true };
export type FromAzure = 'ready' | AzureReport;
