/**
 * Tries once the exchange that a pod's SDK makes with Workload Identity: a token of the service
 * account for a token of Entra ID. It shows whether the federated credential is correct before a
 * pod depends on it. Neither token is printed or stored.
 */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { classifyEntraError } from '../../nmi/sources/entra/aadsts.ts';
import type { Io } from '../base/io.ts';

export interface TrialExchange {
  /** Origin of Entra ID. */
  readonly authority: string;
  readonly tenantId: string;
  readonly clientId: string;
  /** A token of the service account, for the audience of the cloud. */
  readonly assertion: string;
}

export type TrialResult =
  | { readonly ok: true }
  /** `reason` is one of the agent's; `detail` is a sentence of Entra ID without secrets. */
  | { readonly ok: false; readonly reason: string; readonly detail: string };

/** Every tenant issues a token for this resource, which grants no access by itself. */
const scope = 'https://management.azure.com/.default';

export async function tryExchange(
  { post }: Pick<Io, 'post'>,
  { authority, tenantId, clientId, assertion }: TrialExchange,
): Promise<TrialResult> {
  const url = `${authority}/${encodeURIComponent(tenantId)}/oauth2/v2.0/token`;
  const answer = await post(url, {
    grant_type: 'client_credentials',
    client_id: clientId,
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: assertion,
    scope,
  });
  if (answer === undefined) {
    const detail = `${authority} cannot be reached from this machine`;
    return { ok: false, reason: 'upstream_down', detail };
  }
  if (answer.status === 200 && stringAt(parseRecord(answer.body), 'access_token') !== '') {
    return { ok: true };
  }
  const { reason, description } = classifyEntraError({ ...answer, retryAfterS: undefined }, [
    assertion,
  ]);
  // Another cloud has another name for this resource, and checks the credential first.
  if (reason === 'resource_refused') return { ok: true };
  return { ok: false, reason, detail: description.slice(0, 300) };
}
