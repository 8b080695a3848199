/** The applications of a fake Entra ID: their names and their credentials. */
import { createLabIdentity, labTenantId } from '../identity.ts';
import type { LabIdentity } from '../token.ts';

/** An application in one tenant. Its tokens name it as the tokens of node identities do. */
export interface EntraApplication extends LabIdentity {
  readonly tenantId: string;
  /** Where it is registered; `tenantId` has its service principal. */
  readonly homeTenantId: string;
  /** Of an agent identity: the client id of the application that it belongs to. */
  readonly blueprint?: string;
  readonly secrets: readonly EntraSecret[];
  /** PEM of each certificate that may sign for it. */
  readonly certificates: readonly string[];
  readonly federatedCredentials: readonly FederatedCredential[];
  readonly disabled: boolean;
  /** A Conditional Access policy blocks it. */
  readonly blockedByPolicy: boolean;
}

export interface EntraSecret {
  readonly value: string;
  /** Undefined: never expires. */
  readonly expiresAtWallMs?: number;
}

/** All three are compared exactly, including case. */
export interface FederatedCredential {
  readonly issuer: string;
  readonly subject: string;
  readonly audience: string;
}

/** IDs are derived from the name. Defaults: no credential, the lab's own tenant. */
export function createEntraApplication(
  name: string,
  details: Partial<EntraApplication> = {},
): EntraApplication {
  return {
    ...createLabIdentity(name),
    // An application has no Azure resource.
    resourceId: '',
    tenantId: labTenantId,
    homeTenantId: details.tenantId ?? labTenantId,
    secrets: [],
    certificates: [],
    federatedCredentials: [],
    disabled: false,
    blockedByPolicy: false,
    ...details,
  };
}

export interface EntraDirectory {
  /** Replaces an application with the same tenant and client ID; the tenant exists from now on. */
  register(application: EntraApplication): void;
  unregister(tenantId: string, clientId: string): void;
  hasTenant(tenantId: string): boolean;
  find(tenantId: string, clientId: string): EntraApplication | undefined;
  /** Removes all applications, and every tenant but the lab's own. */
  clear(): void;
}

export function createEntraDirectory(): EntraDirectory {
  const tenants = new Map<string, Map<string, EntraApplication>>();
  const clear = (): void => {
    tenants.clear();
    tenants.set(labTenantId, new Map());
  };
  clear();
  return {
    register: (application) => {
      const tenantId = application.tenantId.toLowerCase();
      const applications = tenants.get(tenantId) ?? new Map<string, EntraApplication>();
      applications.set(application.clientId.toLowerCase(), application);
      tenants.set(tenantId, applications);
    },
    unregister: (tenantId, clientId) => {
      tenants.get(tenantId.toLowerCase())?.delete(clientId.toLowerCase());
    },
    hasTenant: (tenantId) => tenants.has(tenantId.toLowerCase()),
    find: (tenantId, clientId) => tenants.get(tenantId.toLowerCase())?.get(clientId.toLowerCase()),
    clear,
  };
}
