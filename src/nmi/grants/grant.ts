/** What a pod is granted for a request: the identity of its token, or why it gets none. */
import type { ObjectName } from '../../cache/index/object-name.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { RefusedCaller, RefusedWith } from '../callers/identify.ts';
import type { EntraIdentity } from '../sources/entra/entra-identity.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';
import type { ChoiceRefusal, NamedSelector } from './choose-identity.ts';
import type { GrantEntry } from './identity-owners.ts';

export interface Granted {
  readonly kind: 'granted';
  readonly pod: Pod;
  readonly upstream: UpstreamIdentity;
  /** Further tenants whose tokens go into the same answer; nearly always none. */
  readonly auxiliary: readonly EntraIdentity[];
  /** Undefined for an excepted pod, and where the service account names the application. */
  readonly identity: Identity | undefined;
  /** How the identity was chosen, for the log. */
  readonly by: string;
}

/** Only the upstream has the object ids of identities: one of these may have the requested one. */
export interface ByObjectId {
  readonly kind: 'by-object-id';
  readonly pod: Pod;
  readonly candidates: readonly Granted[];
  readonly objectId: string;
}

export type PodFacts =
  | { readonly about: 'pod-gone' | 'host-network' | 'account-pending' }
  | {
      readonly about: 'account-unavailable' | 'account-unreadable' | 'account-unannotated';
      readonly account: ObjectName;
    }
  | { readonly about: 'old-rights'; readonly problem: string }
  | { readonly about: 'account-selector'; readonly selector: NamedSelector }
  | { readonly about: 'object-id'; readonly objectId: string }
  | { readonly about: 'resource'; readonly identity: Identity; readonly resource: string }
  | {
      readonly about: 'unusable';
      /** Undefined for the application of a service account. */
      readonly identity: Identity | undefined;
      readonly problem: string;
    }
  | { readonly about: 'not-owned'; readonly unowned: Unowned }
  /** New ones of the pod in a minute. */
  | { readonly about: 'resources'; readonly most: number; readonly waitS: number }
  | {
      readonly about: 'choice';
      readonly choice: ChoiceRefusal;
      /** The selector or identity that was probably meant instead of one that does not exist. */
      readonly meant?: string | undefined;
    };

/** An object that names an identity, and the entry that no grant has for its namespace. */
export interface Unowned {
  readonly kind: 'AzureIdentity' | 'AzurePodIdentityException';
  readonly name: string;
  readonly entry: GrantEntry;
}

export type RefusedPod = RefusedWith<PodFacts, Pod>;
export type Refused = RefusedCaller | RefusedPod;

export type Grant = Granted | ByObjectId | Refused;
