/** Records of requests as the server hands them over, with the parts that a test needs. */
import type { Answer } from '../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../src/nmi/callers/caller.ts';
import type { Granted } from '../../src/nmi/grants/grant.ts';
import type { GrantedDecision } from '../../src/nmi/server/decision-cache.ts';
import type { Exchange, TokenDecision } from '../../src/nmi/server/request.ts';
import type { Hit, RequestRecord } from '../../src/nmi/server/request-record.ts';
import type { Route } from '../../src/nmi/server/route.ts';
import { createIdentity, createPod } from './cache-objects.ts';

export const podIp = '10.0.0.1';
export const tokenRoute: Route = { kind: 'token', query: '' };
export const hostTokenRoute: Route = { kind: 'host-token', query: '' };

export function routeTo(path: string): Route {
  return { kind: 'passthrough', area: 'instance', path, query: '' };
}

export function callerAt(remoteIp = podIp): CallerConnection {
  return new CallerConnection({ remoteIp }, { kind: 'by-address' });
}

export function createExchange(over: Partial<Exchange> = {}): Exchange {
  return {
    caller: callerAt(),
    method: 'GET',
    startedAtMs: 0,
    requestId: 'id',
    isGone: false,
    headerValues: () => [],
    ...over,
  };
}

/** Pod `p` has identity `i`. */
export function createGrant(over: Partial<Granted> = {}): Granted {
  return {
    kind: 'granted',
    pod: createPod({ name: 'p', ips: [podIp] }),
    identity: createIdentity({ name: 'i' }),
    by: 'only',
    upstream: { kind: 'client_id', value: 'c' },
    auxiliary: [],
    ...over,
  };
}

export function createDecision(over: Partial<TokenDecision> = {}): TokenDecision {
  const resource = 'https://vault.azure.net';
  return { grant: createGrant(), resource, cache: 'miss', fetchId: undefined, ...over };
}

/** A token request that was served, unless the test says otherwise. */
export function createRecord(over: Partial<RequestRecord> = {}): RequestRecord {
  const { decision = createDecision() } = over;
  const pod = decision.grant?.pod;
  return {
    route: tokenRoute,
    method: 'GET',
    status: 200,
    reason: 'ok',
    refusal: '',
    podIp,
    limitKey: pod === undefined ? podIp : `pod ${pod.uid}`,
    identifiedBy: 'address',
    pod,
    callerPod: pod,
    decision,
    userAgent: '',
    durationMs: 5,
    requestId: 'id',
    correlation: { clientRequestId: undefined, traceId: undefined },
    isGone: false,
    ...over,
  };
}

/** The record of a refused request, of a pod that would have its token otherwise. */
export function createRefusal(
  { status, reason, body }: Answer,
  over: Partial<RequestRecord> = {},
): RequestRecord {
  return createRecord({ status, reason, refusal: body, ...over });
}

export function createGrantedDecision(grant = createGrant()): GrantedDecision {
  return {
    target: '/',
    generation: 1,
    madeAtMs: 0,
    query: {
      resource: 'https://vault.azure.net',
      selector: { kind: 'none' },
      bypassCache: false,
      badTokenSha256: undefined,
    },
    cacheKey: 'k',
    grant,
  };
}

export function createHit(over: Partial<Hit> = {}): Hit {
  return {
    caller: callerAt(),
    decision: createGrantedDecision(),
    startedAtMs: 0,
    requestId: 'id',
    request: { bytes: Buffer.alloc(0), ids: [] },
    fetchId: 'fetch',
    ...over,
  };
}
