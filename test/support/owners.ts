import { OwnerIndex } from '../../src/cache/index/owner-index.ts';
import type { IdentityGrant } from '../../src/cache/index/objects.ts';
import { IdentityOwners, type OwnersMode } from '../../src/nmi/grants/identity-owners.ts';
import { createIdentityGrant } from './cache-objects.ts';

/** The owners of identities by these grants; `index` changes them. */
export function createOwners(mode: OwnersMode, ...grants: readonly Partial<IdentityGrant>[]) {
  const index = new OwnerIndex();
  index.grants.replace(grants.map(createIdentityGrant));
  return { index, owners: new IdentityOwners(index, mode) };
}
