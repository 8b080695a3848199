/**
 * The port to whatever fetches a token from outside. A source does I/O and nothing else: it does
 * not cache, does not decide who may ask, and turns every failure into a value.
 */
import type { Token } from '../../cache/token.ts';

/** Whose token is wanted, in the upstream's own terms. */
export type UpstreamIdentity =
  | { readonly kind: 'client_id' | 'object_id' | 'resource_id'; readonly value: string }
  /** Whatever the upstream gives when nobody is named: the node's own identity. */
  | { readonly kind: 'unnamed' };

export interface TokenRequest {
  readonly identity: UpstreamIdentity;
  /** As the caller spelt it. */
  readonly resource: string;
}

export interface SourceFailure {
  readonly reason:
    'identity_not_assigned' | 'upstream_refused' | 'upstream_throttled' | 'upstream_down';
  /** OAuth error code of the upstream, when it is to be relayed. */
  readonly error?: string;
  /** Text safe to show to the caller; never holds a token, a secret or a URL with credentials. */
  readonly description: string;
  /** Seconds to wait, if the upstream said so. */
  readonly retryAfterS?: number;
  /** How long asking again for the same is useless, in milliseconds. */
  readonly holdMs: number;
}

export type SourceResult =
  | { readonly ok: true; readonly token: Token }
  | { readonly ok: false; readonly failure: SourceFailure };

export interface TokenSource {
  /** A short constant word for metrics and logs. */
  readonly name: string;
  /** Never rejects; ends within the source's own time limit. A delivered token is alive. */
  fetch(request: TokenRequest): Promise<SourceResult>;
}
