/** What the agent reports as JSON on its local socket; never a token, a secret or an assertion. */
import type { Binding, Pod, PodPhase } from '../../cache/index/objects.ts';
import type { TokenStatus } from '../../cache/token/cache.ts';
import type { IdentifiedBy } from '../callers/caller.ts';
import type { Finding } from '../diagnosis/finding.ts';
import type { RefusedRequest } from '../diagnosis/pod.ts';
import type { AskedAs } from '../kube/api/node-impersonation.ts';
import type { WatchProblem } from '../kube/watch/watch-report.ts';
import type { PastDecision } from '../server/request-record.ts';
import type { WatchAge } from '../kube/watch/watches.ts';

/** Incremented when an old reader would misunderstand the JSON. */
export const explanationSchema = 2;

export function isExplanation(value: object | undefined): value is Explanation {
  return value !== undefined && 'schema' in value && value.schema === explanationSchema;
}

export type Explanation = PodExplanation | NodeExplanation | NoPodExplanation;

export interface PodExplanation extends ExplanationBase {
  readonly kind: 'pod';
  readonly pod: Omit<Pod, 'resourceVersion' | 'cgroupUid' | 'createdAtWallMs'>;
  /** How connections are identified as this pod's. Empty without an address of its own. */
  readonly addresses: readonly {
    readonly ip: string;
    /** Undefined if a connection from there is this pod's. */
    readonly refusal: RefusalView | undefined;
  }[];
  /** The value of the binding label; may be empty. */
  readonly label: string | undefined;
  readonly exception: string | undefined;
  readonly bindings: readonly BindingView[];
  /** In the order in which a request without an identity would select them. */
  readonly identities: readonly IdentityView[];
  /** The request without an identity first, then the one of the query. */
  readonly requests: readonly RequestView[];
  /** The clients that the pod was seen to use: `azsdk-python-identity/1.25.0`, or `other`. */
  readonly clients: readonly string[];
  /** How its connections were identified since the agent's start; absent from an older agent. */
  readonly identifiedBy?: readonly IdentifiedBy[];
  /** Its last requests, each kind of them once, the latest first; absent from an older agent. */
  readonly decisions?: readonly PastDecision[];
  /** What is wrong, the request of the query first. */
  readonly findings: readonly Finding[];
}

export interface NodeExplanation extends ExplanationBase {
  readonly kind: 'node';
  /** Absent from an older agent. */
  readonly agent: AgentFacts | undefined;
  readonly pods: readonly PodLine[];
  readonly omitted: number;
}

export interface AgentFacts {
  readonly version: string;
  readonly commit: string;
  readonly nodeVersion: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly unmetConditions: readonly string[];
  /** By name, with the values in force; a free text that is not the default is left out. */
  readonly flags: Readonly<Record<string, string>>;
}

export interface NoPodExplanation extends ExplanationBase {
  readonly kind: 'no-pod';
  readonly problem: string;
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
    readonly problem: string | undefined;
  };
  readonly watches: {
    /** Resources without a first list. */
    readonly unsynced: readonly string[];
    /** Since the last event on the most silent of them; undefined if one never had any. */
    readonly silentForMs: number | undefined;
    readonly failing: readonly WatchProblem[];
    /** Held to this node by the API server, or with the rights of all agents; undefined before the first answer. */
    readonly podsAskedAs?: AskedAs | undefined;
    /** Watches whose objects were not proven current for minutes; absent from an older agent. */
    readonly stale?: readonly WatchAge<string>[];
  };
}

export type BindingView = Pick<Binding, 'name' | 'identityName'> & {
  readonly identityExists: boolean;
};

export interface IdentityView {
  readonly kind: 'azure-identity' | 'service-account' | 'node';
  /** Name of the AzureIdentity or the service account, without its namespace; else `node`. */
  readonly name: string;
  /** `spec.type`; undefined for anything but an AzureIdentity. */
  readonly type: number | undefined;
  readonly clientId: string;
  readonly resourceId: string;
  readonly upstream: UpstreamView | undefined;
  readonly refusal: RefusalView | undefined;
  /** Cached tokens, by resource; undefined for an explanation without an agent. */
  readonly tokens: readonly TokenView[] | undefined;
}

/** Where tokens are requested, and with which credential. Absent texts are empty. */
export interface UpstreamView {
  /** `imds`, or the kind of the credential. */
  readonly source: string;
  /** Empty for the node's own service, and for the API server of AKS. */
  readonly authority: string;
  readonly tenantId: string;
  readonly auxiliaryTenantIds: readonly string[];
  /** The Secret or the service account of the credential; `namespace/name`. */
  readonly credential: string;
  /** Since when tokens count: the time of a revocation. */
  readonly notBefore: string;
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
  /** How long the failure is still cached; 0 when that is over. */
  readonly heldForMs: number;
}

export interface RequestView {
  /** As in the query; empty for a request that names no identity. */
  readonly selector: string;
  readonly resource: string | undefined;
  readonly outcome: Outcome;
}

export type Outcome =
  | {
      readonly kind: 'granted';
      readonly identity: string;
      /** Why that one, in a word or two. */
      readonly by: string;
      /** Source of the token; undefined when no resource is named. */
      readonly from: 'memory' | 'memory-or-upstream' | 'upstream' | undefined;
      /** The source refuses the identity: when the cached token expires, and the answer from then on. */
      readonly until?: { readonly at: string; readonly refusal: RefusalView };
    }
  | { readonly kind: 'refused'; readonly refusal: RefusalView }
  /** Its connections cannot be distinguished from the node's, or it has none yet or any more. */
  | { readonly kind: 'unreachable'; readonly why: 'host-network' | 'no-address' | 'ended' };

export interface RefusalView extends RefusedRequest {
  readonly error: string;
  readonly description: string;
  /** The request waits for a moment before this answer, since the state may change. */
  readonly isWaitedFor: boolean;
}

export interface PodLine {
  readonly namespace: string;
  readonly name: string;
  /** Empty while it has none. */
  readonly ip: string;
  readonly phase: PodPhase;
  readonly label: string | undefined;
  readonly outcome: Outcome;
  /** As for one pod; undefined if the agent does not observe requests. */
  readonly clients?: readonly string[];
}
