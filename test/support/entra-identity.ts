import type { EntraIdentity } from '../../src/nmi/sources/entra/entra-identity.ts';

/** An application with a client secret; a test sets only the fields that it checks. */
export function createEntraIdentity(fields: Partial<EntraIdentity> = {}): EntraIdentity {
  return {
    kind: 'entra',
    authority: 'https://login.microsoftonline.com',
    tenantId: 'contoso.example',
    clientId: 'client',
    credential: { kind: 'secret', secret: { namespace: 'default', name: 's' } },
    ...fields,
  };
}
