/**
 * The port to whatever fetches a token from outside. A source does I/O and nothing else: it does
 * not cache tokens, does not decide who may ask, and turns every failure into a value.
 */
import type { Token } from '../../cache/token/token.ts';
import type { EntraErrorDetails } from '../base/answers.ts';
import type { AzureNode } from './azure-node.ts';

/** An identity as the node's own metadata service knows it. */
export type NodeIdentity =
  | { readonly kind: 'client_id' | 'object_id' | 'resource_id'; readonly value: string }
  /** Whatever the upstream gives when nobody is named: the node's own identity. */
  | { readonly kind: 'unnamed' };

export interface TokenRequest<I> {
  readonly identity: I;
  /** As the caller spelt it. */
  readonly resource: string;
  /** Whatever the upstream itself remembers is not wanted. */
  readonly bypassCache?: boolean;
  /** A GUID that goes upstream, and into the upstream's own logs. Default: a new one for each call. */
  readonly correlationId?: string;
}

/**
 * Why there is no token. `upstream_down` and `upstream_throttled` pass by themselves; the others
 * need somebody to change something, though some only because a change has not arrived yet.
 */
export type FailureReason =
  /** IMDS: the identity is not assigned to this node. */
  | 'identity_not_assigned'
  /** The upstream refused for a reason of its own that fits no other word. */
  | 'upstream_refused'
  | 'upstream_throttled'
  | 'upstream_down'
  /** Entra ID knows no such resource or scope. */
  | 'resource_refused'
  /** Entra ID knows no such application or tenant, or it is disabled. */
  | 'identity_refused'
  /** Entra ID does not take the secret, certificate or assertion. */
  | 'credential_refused'
  /** The Secret or service account that the credential is made of does not exist. */
  | 'credential_missing'
  /** It exists and cannot be used: a wrong key name, an unreadable certificate, no permission. */
  | 'credential_invalid'
  /** No federated credential matches the assertion's issuer, subject or audience (yet). */
  | 'federation_refused'
  /** A Conditional Access policy or missing consent. */
  | 'policy_refused';

export interface SourceFailure {
  readonly reason: FailureReason;
  /** OAuth error code of the upstream, when it is to be relayed. */
  readonly error?: string;
  /** Text safe to show to the caller; never holds a token, a secret or a URL with credentials. */
  readonly description: string;
  readonly details?: EntraErrorDetails;
  /** With `identity_not_assigned`, where known: to what it is not. */
  readonly node?: AzureNode;
  /** Seconds to wait, if the upstream said so. */
  readonly retryAfterS?: number;
  /** Id of the fetch that failed: the correlation id in the request to the source. */
  readonly fetchId?: string;
  /** How long asking again for the same is useless, in milliseconds. */
  readonly cooldownMs: number;
}

export type SourceResult =
  | { readonly ok: true; readonly token: Token }
  | { readonly ok: false; readonly failure: SourceFailure };

/** Asked before a fetch goes to its upstream once more: the upstream counts every try. */
export type MayRetry = () => boolean;

export interface TokenSource<I> {
  /** Never rejects; ends within the source's own time limit. A delivered token is alive. */
  fetch(request: TokenRequest<I>, mayRetry: MayRetry): Promise<SourceResult>;
}
