import type { Revocable } from '../source.ts';
import type { EntraCredential } from './credentials/kinds.ts';

/** An application or identity for which tokens are requested from Entra ID itself. */
export interface EntraIdentity extends Revocable {
  readonly kind: 'entra';
  /** Origin of an authority on the allow list, for instance `https://login.microsoftonline.com`. */
  readonly authority: string;
  /** GUID or domain name, in lower case. */
  readonly tenantId: string;
  /** GUID, in lower case. */
  readonly clientId: string;
  readonly credential: EntraCredential;
  /**
   * Client id of an agent identity, in lower case: the token is what that authenticates with
   * (`fmi_path`).
   */
  readonly agentIdentity?: string;
}

/** `login.microsoftonline.com:443`. @param url with the https scheme, as all have. */
export function hostOf(url: string): string {
  const { hostname, port } = new URL(url);
  return `${hostname}:${port === '' ? '443' : port}`;
}
