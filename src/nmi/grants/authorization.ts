/** The outcome of asking whether a pod may have a token, and of which identity. */
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { Refused } from './identify.ts';
import type { EntraIdentity, UpstreamIdentity } from '../sources/source.ts';

/** A pod's right to a token, in the upstream's terms. */
export interface Authorised {
  readonly kind: 'authorised';
  readonly pod: Pod;
  readonly upstream: UpstreamIdentity;
  /** Further tenants whose tokens go into the same answer; nearly always none. */
  readonly auxiliary: readonly EntraIdentity[];
  /**
   * Undefined for an excepted pod, which gets the node's own answer, and for one whose service
   * account names its application.
   */
  readonly identity: Identity | undefined;
  /** How the identity was chosen, for the log. */
  readonly by: string;
}

/** The object ids of identities are the upstream's knowledge: one of these may have the one asked. */
export interface ByObjectId {
  readonly kind: 'by-object-id';
  readonly pod: Pod;
  readonly candidates: readonly Authorised[];
  readonly objectId: string;
}

export type Authorisation = Authorised | ByObjectId | Refused;
