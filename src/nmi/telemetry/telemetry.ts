/**
 * Log lines of token decisions, and the counters. A pod decides how many decisions there are, but
 * not how many lines. Nothing here changes an answer or reports a secret: only the existence of a
 * token is reported.
 */
import { fullName } from '../../cache/index/object-name.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { Answer, Reason } from '../base/answers.ts';
import { LogBudget } from '../../base/lines/log-budget.ts';
import type { Clock } from '../../base/time/clock.ts';
import type { RefreshOutcome } from '../../cache/token/cache.ts';
import { BoundedLabel, resourceLabel } from './bounded-label.ts';
import type { Observe } from './bound-histogram.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { presetSeries } from './preset-series.ts';
import { exportProcess } from './process-metrics.ts';
import { RequestCounts, type HitCount } from './request-counts.ts';
import { SeenClients } from './seen-clients.ts';
import { userAgentOf } from './user-agent.ts';
import type { CallerConnection } from '../callers/caller.ts';
import type { Authorized } from '../grants/authorization.ts';
import { relayed, type Exchange, type Handled } from '../server/request.ts';
import { correlationInBytes, correlationOf } from '../base/correlation.ts';
import type { Hit, Observer, TokenDecision } from '../server/observer.ts';
import type { GrantedDecision } from '../server/decision-cache.ts';
import { loggablePath, loggableResource, redactClientId } from '../../base/log.ts';
import type { Logger, PreparedLine } from '../../base/logger.ts';
import { hostTokenPath, tokenPath, type Route } from '../server/route.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { SourceResult } from '../sources/source.ts';
import { sourceNameOf, type UpstreamIdentity } from '../sources/upstream-identity.ts';

/** The data that is the same for all hits of one decision: rendered and looked up once. */
interface PreparedHit {
  /** Kind of its log lines. */
  readonly kind: string;
  readonly reportMore: (count: number) => void;
  /** Connections of one pod share a decision, and may come from several addresses. */
  readonly podIp: string;
  readonly log: PreparedLine;
  readonly observeOperation: Observe;
  readonly count: HitCount;
  readonly handled: Readonly<Record<string, string>>;
}

const hitLabels = {
  handled: { route: 'token', reason: 'ok' },
  request: { route: 'token', cache: 'hit' },
  cache: { outcome: 'hit' },
} as const;

const tokenRequest = 'token request';
const requestHandled = 'request handled';
const furtherRequests = 'further token requests';
const metadataRequest = 'metadata request';
const furtherMetadataRequests = 'further metadata requests';
const maxDetail = 500;
/**
 * Lines of one pod and identity, or of failures of one source, before further ones are only
 * counted. Clients keep tokens.
 */
const most = { served: 100, refused: 1, failed: 20 } as const;

/** Reasons for callers that are no known pod; the replaced system counted these. */
const unknownCallers: ReadonlySet<string> = new Set(['pod_unknown', 'pod_ambiguous']);

/** Reasons of token requests that end before a decision; only `onHandled` reports them. */
const undecided: ReadonlySet<string> = new Set([
  'metadata_header_missing',
  'method_not_allowed',
  'forwarded',
  'loop_detected',
  'internal_error',
]);

export interface Telemetry {
  readonly metrics: Metrics;
  readonly observer: Observer;
  readonly clients: Pick<SeenClients, 'of' | 'identifiedBy'>;
}

export interface TelemetryOptions {
  readonly log: Logger;
  readonly clock: Clock;
  /** The metrics of the replaced system under their names. */
  readonly oldNames: boolean;
  /** A series for each AzureIdentity. */
  readonly byIdentity: boolean;
}

/** The agent's metrics, and the observer of requests that fills them. */
export function createTelemetry(options: TelemetryOptions): Telemetry {
  const { log, clock, byIdentity } = options;
  const metrics = createMetrics(options);
  presetSeries(metrics);
  exportProcess(metrics);
  const clients = new SeenClients();
  return { metrics, clients, observer: createObserver(metrics, log, clock, clients, byIdentity) };
}

export function createObserver(
  metrics: Metrics,
  log: Logger,
  clock: Clock,
  clients = new SeenClients(),
  byIdentity = false,
): Observer {
  const counts = new RequestCounts(metrics, byIdentity);
  const namespaces = new BoundedLabel(200);
  const prepared = new WeakMap<GrantedDecision, PreparedHit>();
  const observeHit = metrics.observer('nmi_request_duration_seconds', hitLabels.request);
  const budget = new LogBudget({
    clock,
    onOthers: (count) => log.warn({ count }, 'further log lines left out'),
  });
  /** Hits since the last scrape. */
  let hits = 0;

  /**
   * An answer is made and written in the microtasks of one turn, and this runs after them:
   * recording a miss takes a tenth of a millisecond, since its code is never warm.
   */
  function afterAnswer(record: () => void): void {
    process.nextTick(() => {
      try {
        record();
      } catch (error) {
        // The request is answered already, and the error is no reason to end.
        log.error({ err: stackOf(error) }, 'failed to record request telemetry');
      }
    });
  }

  metrics.onScrape(() => {
    metrics.inc('nmi_token_cache_requests_total', hitLabels.cache, hits);
    metrics.inc('nmi_requests_total', hitLabels.handled, hits);
    hits = 0;
  });

  function prepareHit(caller: CallerConnection, head: Buffer, right: GrantedDecision): PreparedHit {
    const podIp = caller.ip;
    const { authorization, query } = right;
    const { pod } = authorization;
    const { resource } = query;
    // A decision is valid for one second: only the User-Agent of its first request is read.
    clients.see(pod.uid, userAgentOf(head), caller.identifiedBy);
    const fields = {
      status: 200,
      reason: 'ok',
      method: 'GET',
      path: tokenPath,
      podIp,
      pod: pod.name,
      namespace: pod.namespace,
      uid: pod.uid,
      ...identityFields(authorization),
      resource: loggableResource(resource),
      source: sourceNameOf(authorization.upstream),
      cache: 'hit',
    };
    const hit: PreparedHit = {
      podIp,
      kind: servedKind(authorization),
      reportMore: (count) => log.info({ ...fields, count }, furtherRequests),
      log: log.prepare(fields, tokenRequest),
      observeOperation: metrics.observer('aadpodidentity_nmi_operations_duration_seconds', {
        operation_type: tokenPath,
        status_code: '200',
        namespace: namespaces.of(pod.namespace),
        resource: resourceLabel(resource),
      }),
      count: counts.ofHits(pod, authorization.identity),
      handled: { ...hitLabels.handled, method: 'GET', podIp },
    };
    prepared.set(right, hit);
    return hit;
  }

  function onHit(
    { caller, startedAtMs, requestId, request, fetchId }: Hit,
    right: GrantedDecision,
  ): void {
    const known = prepared.get(right);
    const hit = known?.podIp === caller.ip ? known : prepareHit(caller, request.bytes, right);
    const durationMs = clock.monotonicMs() - startedAtMs;
    const seconds = durationMs / 1000;
    hit.observeOperation(seconds);
    observeHit(seconds);
    hits++;
    hit.count.hits++;
    if (budget.allows(hit.kind, most.served, hit.reportMore)) {
      const ids = { requestId, ...correlationInBytes(request), fetchId };
      hit.log(Math.round(durationMs * 1000) / 1000, ids);
    }
    log.debug(hit.handled, requestHandled);
  }

  function onDecision(exchange: Exchange, decision: TokenDecision): void {
    const durationMs = clock.monotonicMs() - exchange.startedAtMs;
    const { isGone } = exchange;
    afterAnswer(() => recordDecision(exchange, decision, durationMs, isGone));
  }

  function recordDecision(
    exchange: Exchange,
    { route, answer, authorization, cache, resource, source, fetchId }: TokenDecision,
    durationMs: number,
    isGone: boolean,
  ): void {
    const pod = authorization?.pod;
    // At /host/token another process sends the request for the pod.
    if (pod !== undefined && route === 'token') {
      const userAgent = exchange.headerValues('user-agent')[0] ?? '';
      clients.see(pod.uid, userAgent, exchange.caller.identifiedBy);
    }
    const path = route === 'host-token' ? hostTokenPath : tokenPath;
    metrics.observe('aadpodidentity_nmi_operations_duration_seconds', durationMs / 1000, {
      operation_type: path,
      status_code: String(answer.status),
      namespace: pod === undefined ? '' : namespaces.of(pod.namespace),
      resource: resourceLabel(resource),
    });
    const identity = authorization?.kind === 'authorized' ? authorization.identity : undefined;
    counts.add(pod, identity, answer.reason);
    metrics.observe('nmi_request_duration_seconds', durationMs / 1000, { route, cache });
    if (cache !== 'none') metrics.inc('nmi_token_cache_requests_total', { outcome: cache });
    if (unknownCallers.has(answer.reason)) {
      metrics.inc('aadpodidentity_kubernetes_api_operations_errors_count', {
        operation_type: 'get_pod_list',
      });
    }
    const isServed = answer.status === 200;
    const level = isServed ? 'info' : 'warn';
    const whose = {
      status: answer.status,
      reason: answer.reason,
      method: exchange.method,
      path,
      podIp: exchange.caller.ip,
      pod: pod?.name,
      namespace: pod?.namespace,
      uid: pod?.uid,
      ...(authorization?.kind === 'authorized' ? identityFields(authorization) : {}),
    };
    const kind =
      isServed && authorization?.kind === 'authorized'
        ? servedKind(authorization)
        : `${pod?.uid ?? 'unknown'} ${answer.reason}`;
    const reportMore = (count: number): void => log[level]({ ...whose, count }, furtherRequests);
    if (!budget.allows(kind, isServed ? most.served : most.refused, reportMore)) return;
    log[level](
      {
        ...whose,
        resource: resource === '' ? undefined : loggableResource(resource),
        source: source === '' ? undefined : source,
        cache,
        durationMs: Math.round(durationMs * 1000) / 1000,
        requestId: exchange.requestId,
        ...correlationOf(exchange),
        fetchId,
        clientGone: isGone ? true : undefined,
      },
      tokenRequest,
    );
  }

  function onFetch(identity: UpstreamIdentity, result: SourceResult, durationMs: number): void {
    afterAnswer(() => recordFetch(identity, result, durationMs));
  }

  function recordFetch(identity: UpstreamIdentity, result: SourceResult, durationMs: number): void {
    const source = sourceNameOf(identity);
    const outcome = result.ok ? 'ok' : result.failure.reason;
    metrics.inc('nmi_upstream_requests_total', { source, outcome });
    metrics.observe('nmi_upstream_duration_seconds', durationMs / 1000, { source });
    const labels = { operation_type: operationType(identity) };
    if (result.ok) {
      metrics.observe('aadpodidentity_imds_operations_duration_seconds', durationMs / 1000, labels);
    } else {
      metrics.inc('aadpodidentity_imds_operations_errors_count', labels);
      const { reason, description, details, fetchId } = result.failure;
      const reportMore = (count: number): void =>
        log.warn({ source, reason, count }, 'further token fetches failed');
      if (!budget.allows(`${source} ${reason}`, most.failed, reportMore)) return;
      log.warn(
        {
          source,
          reason,
          durationMs,
          detail: description.slice(0, maxDetail),
          fetchId,
          correlationId: details?.correlationId,
        },
        'token fetch failed',
      );
    }
  }

  function onHandled(exchange: Exchange, route: Route, handled: Handled): void {
    const reason = handled === relayed ? 'ok' : handled.reason;
    metrics.inc('nmi_requests_total', { route: route.kind, reason });
    if (isOfTokens(route) && undecided.has(reason)) {
      counts.add(podOf(exchange), undefined, reason);
    }
    if (route.kind === 'passthrough' && handled !== relayed) {
      logRefusedMetadata(exchange, route.path, handled);
      return;
    }
    // Probes of SDKs and of other clouds' clients arrive all the time and are no errors.
    log.debug(
      { route: route.kind, reason, method: exchange.method, podIp: exchange.caller.ip },
      requestHandled,
    );
  }

  function logRefusedMetadata(exchange: Exchange, path: string, { status, reason }: Answer): void {
    const { caller, method, requestId, startedAtMs } = exchange;
    const pod = podOf(exchange);
    const whose = {
      status,
      reason,
      method,
      path: loggablePath(path),
      podIp: caller.ip,
      pod: pod?.name,
      namespace: pod?.namespace,
      uid: pod?.uid,
    };
    const reportMore = (count: number): void =>
      log.warn({ ...whose, path: undefined, count }, furtherMetadataRequests);
    const kind = `metadata ${caller.limitKey} ${reason}`;
    if (!budget.allows(kind, most.refused, reportMore)) return;
    const durationMs = Math.round((clock.monotonicMs() - startedAtMs) * 1000) / 1000;
    log.warn({ ...whose, durationMs, requestId, ...correlationOf(exchange) }, metadataRequest);
  }

  function onRefusal(reason: Reason): void {
    metrics.inc('nmi_requests_total', { route: 'refused', reason });
  }

  function onRefresh(outcome: RefreshOutcome): void {
    metrics.inc('nmi_token_refreshes_total', { outcome });
  }

  function onThrottled({ namespace }: Pod, limit: ThrottleLimit): void {
    metrics.inc('nmi_throttled_requests_total', { namespace: namespaces.of(namespace), limit });
  }

  function onSourceBug(error: unknown): void {
    log.error({ err: stackOf(error) }, 'token source failed');
  }

  return { onHit, onDecision, onFetch, onRefresh, onSourceBug, onHandled, onRefusal, onThrottled };
}

function isOfTokens({ kind }: Route): boolean {
  return kind === 'token' || kind === 'host-token';
}

/** The pod that the connection was last resolved to. */
function podOf({ caller: { latest } }: Exchange): Pod | undefined {
  return latest.kind === 'pod' ? latest.pod : undefined;
}

function stackOf(error: unknown): string | undefined {
  return error instanceof Error ? error.stack : 'unknown';
}

function servedKind({ pod, identity }: Authorized): string {
  return `${pod.uid} ok ${identity?.name ?? ''}`;
}

/** The label values of the old metric, which counted Entra ID under IMDS, too. */
function operationType(identity: UpstreamIdentity): string {
  switch (identity.kind) {
    case 'entra':
      return 'adal_token';
    case 'unnamed':
      return 'adal_token_msi';
    default:
      return 'adal_token_msi_userassignedid';
  }
}

function identityFields(authorized: Authorized): Readonly<Record<string, unknown>> {
  const { identity, by, upstream, pod } = authorized;
  const clientId = identity?.clientId ?? clientIdOf(upstream);
  const owner = upstream.kind === 'entra' ? `${pod.namespace}/${pod.serviceAccount}` : 'node';
  return {
    identity: identity === undefined ? owner : fullName(identity),
    identityType: identity?.type,
    clientId: clientId === '' ? undefined : redactClientId(clientId),
    by,
  };
}

function clientIdOf(upstream: UpstreamIdentity): string {
  if (upstream.kind === 'entra') return upstream.clientId;
  return upstream.kind === 'client_id' ? upstream.value : '';
}
