/**
 * Which other AzureIdentities need the assignment of an identity to the nodes: an identity of Azure
 * is assigned once, however many objects of whichever namespaces name it. Pure.
 */
import { normaliseClientId, normaliseResourceId } from '../../cache/index/identifiers.ts';
import { stringAt } from '../../base/json-value.ts';
import { specOf, titleOf, type RawObject } from '../base/object.ts';

export interface OtherUsers {
  /** They name the same resource id or client id. */
  readonly same: readonly RawObject[];
  /** One has only a resource id, the other only a client id. */
  readonly unknown: readonly RawObject[];
}

interface Ids {
  readonly clientId: string;
  readonly resourceId: string;
}

export function findOtherUsers(identity: RawObject, all: readonly RawObject[]): OtherUsers {
  const own = idsOf(identity);
  const others = all.filter(
    (each) => titleOf(each) !== titleOf(identity) && needsAssignment(each) && hasId(idsOf(each)),
  );
  return {
    same: others.filter((each) => isSame(own, idsOf(each))),
    unknown: others.filter((each) => !isComparable(own, idsOf(each))),
  };
}

/** The tokens of other types do not come from the node. Neither do those of Workload Identity. */
export function needsAssignment(identity: RawObject): boolean {
  return (specOf(identity)['type'] ?? 0) === 0;
}

function idsOf(identity: RawObject): Ids {
  const spec = specOf(identity);
  return {
    clientId: normaliseClientId(stringAt(spec, 'clientID')),
    resourceId: normaliseResourceId(stringAt(spec, 'resourceID')),
  };
}

/** The agent refuses an identity without any. */
function hasId({ clientId, resourceId }: Ids): boolean {
  return clientId !== '' || resourceId !== '';
}

function isSame(one: Ids, other: Ids): boolean {
  return (
    (one.clientId !== '' && one.clientId === other.clientId) ||
    (one.resourceId !== '' && one.resourceId === other.resourceId)
  );
}

function isComparable(one: Ids, other: Ids): boolean {
  return (
    (one.clientId !== '' && other.clientId !== '') ||
    (one.resourceId !== '' && other.resourceId !== '')
  );
}
