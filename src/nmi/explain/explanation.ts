/**
 * What the agent reports about a pod and about itself, as JSON on its local socket. Names, times and
 * reasons; never a token, a secret or an assertion.
 */
import type { PodPhase } from '../../cache/index/objects.ts';
import type { TokenStatus } from '../../cache/token/cache.ts';
import type { Reason } from '../base/answers.ts';

/** Grows when a reader of the JSON would misunderstand it. */
export const explanationSchema = 1;

export type Explanation = PodExplanation | NodeExplanation | NoPodExplanation;

/** One pod, and what its requests get. */
export interface PodExplanation extends ExplanationBase {
  readonly kind: 'pod';
  readonly pod: PodView;
  /** How a connection is identified as this pod's. Empty without an address of its own. */
  readonly addresses: readonly AddressView[];
  /** The value of the binding label; may be empty. */
  readonly label: string | undefined;
  /** Name of the exception that this pod falls under. */
  readonly exception: string | undefined;
  /** Those that the label matches. */
  readonly bindings: readonly BindingView[];
  /** In the order in which a request that names none would take them. */
  readonly identities: readonly IdentityView[];
  /** The request that names no identity first, then the one asked about. */
  readonly requests: readonly RequestView[];
  /** What the pod was seen to send requests with: `azsdk-python-identity/1.25.0`, or `other`. */
  readonly clients: readonly string[];
  /** What looks like a mistake; sentences. */
  readonly hints: readonly string[];
}

/** All pods of the node, one line each. */
export interface NodeExplanation extends ExplanationBase {
  readonly kind: 'node';
  readonly pods: readonly PodLine[];
  /** Further pods, left out. */
  readonly omitted: number;
}

/** Nobody to explain. */
export interface NoPodExplanation extends ExplanationBase {
  readonly kind: 'no-pod';
  readonly problem: string;
  /** What a connection from the address asked about is answered. */
  readonly refusal: RefusalView | undefined;
}

interface ExplanationBase {
  readonly schema: typeof explanationSchema;
  readonly node: NodeHealth;
}

export interface NodeHealth {
  readonly name: string;
  readonly redirect: {
    readonly mode: string;
    readonly detail: string;
    /** Why pods are not redirected, if so. */
    readonly problem: string | undefined;
  };
  readonly watches: {
    /** Resources whose first list has not come yet. */
    readonly unsynced: readonly string[];
    /** Milliseconds since the last event on the most silent of them; undefined if one never had any. */
    readonly silentForMs: number | undefined;
    /** Those that fail now. */
    readonly failing: readonly WatchFailureView[];
  };
}

export interface WatchFailureView {
  readonly resource: string;
  /** Code and text of the last error, one line. */
  readonly reason: string;
  /** Milliseconds since it began to fail. */
  readonly forMs: number;
}

export interface PodView {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly phase: PodPhase;
  readonly terminating: boolean;
  readonly hostNetwork: boolean;
  readonly serviceAccount: string;
  readonly ips: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface AddressView {
  readonly ip: string;
  /** Undefined when a connection from there is this pod's. */
  readonly refusal: RefusalView | undefined;
}

export interface BindingView {
  readonly name: string;
  readonly identityName: string;
  readonly identityExists: boolean;
}

/** What tokens are got for. */
export interface IdentityView {
  readonly kind: 'azure-identity' | 'service-account' | 'node';
  /** Of the AzureIdentity or the service account, without its namespace; else `node`. */
  readonly name: string;
  /** `spec.type`; undefined for anything but an AzureIdentity. */
  readonly type: number | undefined;
  readonly clientId: string;
  readonly resourceId: string;
  readonly upstream: UpstreamView | undefined;
  /** Why it cannot be used. */
  readonly refusal: RefusalView | undefined;
  /** The identity of the pod that has the same client id and answers in its place. */
  readonly shadowedBy: string | undefined;
  /** What memory holds, by resource. */
  readonly tokens: readonly TokenView[];
}

/** How upstream is asked. Absent texts are empty. */
export interface UpstreamView {
  /** `imds`, or the kind of the credential. */
  readonly source: string;
  readonly authority: string;
  readonly tenantId: string;
  readonly auxiliaryTenantIds: readonly string[];
  /** The Secret or the service account that the credential is made of; `namespace/name`. */
  readonly credential: string;
}

export interface TokenView {
  readonly resource: string;
  /** Differs from the identity's for a token of an auxiliary tenant. */
  readonly tenantId: string;
  readonly token: TokenStatus | undefined;
  readonly isFetching: boolean;
  readonly failure: FailureView | undefined;
}

export interface FailureView {
  readonly reason: string;
  readonly description: string;
  /** Milliseconds during which nobody asks again; 0 when it is over. */
  readonly heldForMs: number;
}

export interface RequestView {
  /** As the query has it; empty for a request that names no identity. */
  readonly selector: string;
  /** Undefined for a request of whatever resource. */
  readonly resource: string | undefined;
  readonly outcome: Outcome;
}

/** What a request comes to now. */
export type Outcome =
  | {
      readonly kind: 'granted';
      /** The name of one of the identities. */
      readonly identity: string;
      /** Why that one, in a word or two. */
      readonly by: string;
      /** Where the token would come from; undefined when no resource is named. */
      readonly from: 'memory' | 'memory-or-upstream' | 'upstream' | undefined;
    }
  | { readonly kind: 'refused'; readonly refusal: RefusalView }
  /** Its connections are not told apart from the node's, or there are none yet. */
  | { readonly kind: 'unreachable'; readonly why: 'host-network' | 'no-address' };

/** An answer that is no token. */
export interface RefusalView {
  readonly reason: Reason;
  readonly status: number;
  readonly error: string;
  readonly description: string;
  readonly retryAfterS: number | undefined;
  /** The request waits for a moment before it is answered so: it may turn. */
  readonly isWaitedFor: boolean;
}

export interface PodLine {
  readonly namespace: string;
  readonly name: string;
  /** Empty before it has one. */
  readonly ip: string;
  readonly phase: PodPhase;
  readonly label: string | undefined;
  readonly outcome: Outcome;
  /** As of one pod; undefined from an agent that does not look. */
  readonly clients?: readonly string[];
}
