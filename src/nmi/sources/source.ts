/** The interface of everything that fetches a token. It does not cache, and does not authorize. */
import type { Token } from '../../cache/token/token.ts';
import type { EntraErrorDetails } from '../base/answers.ts';

export interface NamedNodeIdentity extends Revocable {
  readonly kind: 'client_id' | 'object_id' | 'resource_id';
  readonly value: string;
}

/** An identity in the terms of the node's own metadata service. */
export type NodeIdentity =
  | NamedNodeIdentity
  /** The identity that the upstream selects for a request without one: the node's own. */
  | { readonly kind: 'unnamed' };

export interface Revocable {
  /** Tokens that were requested before the agent read this time are not used. */
  readonly notBeforeWallMs?: number;
}

export interface TokenRequest<I> {
  readonly identity: I;
  /** In the caller's spelling. */
  readonly resource: string;
  /** The upstream must not answer from its own cache. */
  readonly bypassCache?: boolean;
  /** A GUID that appears in the upstream's own logs. */
  readonly correlationId: string;
  /** The token that authenticates an identity with a credential of a chain. It is secret. */
  readonly assertion?: string;
}

/** All but the first two need a change, which may be on its way. */
export type FailureReason =
  | 'upstream_down'
  | 'upstream_throttled'
  /** IMDS: the identity is not assigned to this node. */
  | 'identity_not_assigned'
  /** The upstream refused for a reason that fits no other code. */
  | 'upstream_refused'
  /** The resource or scope does not exist in Entra ID. */
  | 'resource_refused'
  /** The application or tenant does not exist in Entra ID, or is disabled. */
  | 'identity_refused'
  /** Entra ID rejects the secret, certificate or assertion. */
  | 'credential_refused'
  /** The Secret or service account of the credential does not exist. */
  | 'credential_missing'
  /** It exists but cannot be used: a wrong key name, an unreadable certificate, no permission. */
  | 'credential_invalid'
  /** No federated credential matches the assertion's issuer, subject or audience. */
  | 'federation_refused'
  /** The same, once or twice: Entra ID is asked again at once. */
  | 'federation_pending'
  /** A Conditional Access policy or missing consent. */
  | 'policy_refused';

export interface SourceFailure {
  readonly reason: FailureReason;
  /** OAuth error code of the upstream, if it is relayed. */
  readonly error?: string;
  /** Safe to show to the caller: no token, no secret, no URL with credentials. */
  readonly description: string;
  readonly details?: EntraErrorDetails;
  readonly retryAfterS?: number;
  /** Id of the fetch that failed: the correlation id in the request to the source. */
  readonly fetchId?: string;
  /** How long a repeated request is useless. */
  readonly cooldownMs: number;
  /** Refusals of a federated credential in a row, this one included. */
  readonly refusals?: Refusals;
}

export interface Refusals {
  /** Of the token that was refused: in a chain also an earlier leg's. */
  readonly key: string;
  readonly count: number;
  /** Monotonic milliseconds. */
  readonly sinceMs: number;
  /** Until then, a caller is to try again. */
  readonly isFinal: boolean;
}

export type SourceResult =
  | { readonly ok: true; readonly token: Token }
  | { readonly ok: false; readonly failure: SourceFailure };

export function failed(failure: SourceFailure) {
  return { ok: false, failure } as const;
}

/** Called before a fetch is sent upstream again: the upstream counts every try. */
export type MayRetry = () => boolean;

export interface TokenSource<I> {
  /** Never rejects; ends within the source's own time limit. A returned token has not expired. */
  fetch(request: TokenRequest<I>, mayRetry: MayRetry): Promise<SourceResult>;
}
