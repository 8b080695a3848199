/**
 * What happened to one request, as one value: metrics, log, audit and Events are rendered from it.
 * It contains no token.
 */
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { Answer, Reason } from '../base/answers.ts';
import {
  correlationInBytes,
  correlationOf,
  type Correlation,
  type IdHeaders,
} from '../base/correlation.ts';
import { limitKeyOf, type CallerConnection, type IdentifiedBy } from '../callers/caller.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { Grant } from '../grants/grant.ts';
import type { UpstreamObserver } from '../tokens/broker.ts';
import type { GrantedDecision } from './decision-cache.ts';
import { relayed, type Exchange, type Handled, type TokenDecision } from './request.ts';
import type { Route } from './route.ts';

export interface RequestRecord {
  readonly route: Route;
  readonly method: string;
  readonly status: number;
  readonly reason: Reason;
  /** Body of a refusal, else empty. */
  readonly refusal: string;
  readonly podIp: string;
  readonly limitKey: string;
  readonly identifiedBy: IdentifiedBy | undefined;
  /** The pod of the grant; without a grant that of the connection. */
  readonly pod: Pod | undefined;
  /** The pod of the connection, even if it is not certain now; never that of `/host/token`. */
  readonly callerPod: Pod | undefined;
  /** Undefined for other requests, and for those that were refused before. */
  readonly decision: TokenDecision | undefined;
  readonly userAgent: string;
  /** In whole microseconds. */
  readonly durationMs: number;
  readonly requestId: string;
  readonly correlation: Correlation;
  /** The client had disconnected before the answer. */
  readonly isGone: boolean;
}

/** How requests of a pod were answered; never a token. */
export interface PastDecision {
  /** Since the latest of them. */
  readonly agoMs: number;
  readonly status: number;
  readonly reason: Reason;
  /** `namespace/name`; empty if none was granted, or it is no AzureIdentity. */
  readonly identity: string;
  /** Empty if the request named none. */
  readonly resource: string;
  readonly cache: TokenDecision['cache'];
}

/** A request that the fast path answered. Many have the same decision. */
export interface Hit {
  readonly caller: CallerConnection;
  readonly decision: GrantedDecision;
  readonly startedAtMs: number;
  readonly requestId: string;
  readonly request: IdHeaders;
  /** Id of the fetch that returned the token. */
  readonly fetchId: string | undefined;
}

/** Takes what happens on the request path, and changes no answer. */
export interface Observer extends UpstreamObserver {
  /** Every request that reached the router, once, at its end. */
  onRequest(record: RequestRecord): void;
  /** Every request that the fast path answered. */
  onHit(hit: Hit): void;
  /** A request that was refused before it reached the router. */
  onRefusal(reason: Reason): void;
  /** A request or connection of a pod went beyond a limit of that pod. */
  onThrottled(pod: Pod, limit: ThrottleLimit): void;
}

const ok: Pick<Answer, 'status' | 'reason'> = { status: 200, reason: 'ok' };

/** @param connectionPod the pod that opened the connection, if it is known. */
export function recordOf(
  exchange: Exchange,
  route: Route,
  handled: Handled,
  connectionPod: Pod | undefined,
  nowMs: number,
): RequestRecord {
  const { caller } = exchange;
  const { status, reason } = handled === relayed ? ok : handled;
  const decision = handled === relayed ? undefined : handled.decision;
  const callerPod = route.kind === 'host-token' ? undefined : connectionPod;
  const pod = decision?.grant === undefined ? callerPod : decision.grant.pod;
  return {
    route,
    method: exchange.method,
    status,
    reason,
    refusal: handled === relayed || reason === 'ok' ? '' : handled.body,
    podIp: caller.ip,
    limitKey: pod === undefined ? caller.limitKey : limitKeyOf(pod),
    identifiedBy: caller.identifiedBy,
    pod,
    callerPod,
    decision,
    userAgent: exchange.headerValues('user-agent')[0] ?? '',
    durationMs: roundedMs(nowMs - exchange.startedAtMs),
    requestId: exchange.requestId,
    correlation: correlationOf(exchange),
    isGone: exchange.isGone,
  };
}

export function recordOfHit(hit: Hit, durationMs: number): RequestRecord {
  const { caller, decision, request, requestId, fetchId } = hit;
  const { grant, query } = decision;
  const { pod } = grant;
  return {
    ...ok,
    route: { kind: 'token', query: '' },
    method: 'GET',
    refusal: '',
    podIp: caller.ip,
    limitKey: limitKeyOf(pod),
    identifiedBy: caller.identifiedBy,
    pod,
    callerPod: pod,
    decision: { grant, resource: query.resource, cache: 'hit', fetchId },
    userAgent: userAgentIn(request.bytes),
    durationMs: roundedMs(durationMs),
    requestId,
    correlation: correlationInBytes(request),
    isGone: false,
  };
}

/** Milliseconds without a fraction of a microsecond. */
export function roundedMs(durationMs: number): number {
  return Math.round(durationMs * 1000) / 1000;
}

/** The identity that was granted, or refused if it is the cause. */
export function identityOf(grant: Grant | undefined): Identity | undefined {
  if (grant?.kind === 'granted') return grant.identity;
  return grant?.kind === 'refused' && 'identity' in grant.facts ? grant.facts.identity : undefined;
}

/** @param head of an HTTP request, from the request line on. */
function userAgentIn(head: Buffer): string {
  const [, value = ''] = /\r\nuser-agent:[ \t]*([^\r]*)/i.exec(head.toString('latin1')) ?? [];
  return value;
}
