/**
 * Which identity of the node an `AzureIdentity` names. Only well-formed ids are sent: if upstream
 * treats an id as blank (.NET does for U+0085), it returns the node's own identity. Pure.
 */
import { isGuid, isResourceId } from '../../cache/index/identifiers.ts';
import type { ChainSettings } from '../../cache/index/objects.ts';
import type { NamedNodeIdentity, Revocable } from './source.ts';

/** @returns the problem as it completes "AzureIdentity x ...". */
export function parseNodeIdentity(
  { clientId, resourceId }: Pick<ChainSettings, 'clientId' | 'resourceId'>,
  revocation: Revocable,
): NamedNodeIdentity | string {
  if (clientId !== '') {
    return isGuid(clientId)
      ? { kind: 'client_id', value: clientId, ...revocation }
      : 'has a spec.clientID that is no GUID';
  }
  if (isResourceId(resourceId)) return { kind: 'resource_id', value: resourceId, ...revocation };
  return resourceId === ''
    ? 'names neither spec.clientID nor spec.resourceID'
    : 'has a spec.resourceID that is not that of a user-assigned identity';
}
