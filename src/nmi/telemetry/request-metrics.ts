/** The metrics of requests. A hit costs three increments; its counters are updated at a scrape. */
import type { Identity, Pod } from '../../cache/index/objects.ts';
import { BoundedLabel, resourceLabel } from './bounded-label.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { Hit, RequestRecord } from '../server/request-record.ts';
import { hostTokenPath, tokenPath } from '../server/route.ts';
import type { Observe } from './bound-histogram.ts';
import type { Metrics } from './metrics.ts';
import type { Renderer } from './renderer.ts';
import { createRequestCounts, type RequestCounts } from './request-counts.ts';

/** Reasons for callers that are no known pod; the replaced system counted these. */
const unknownCallers: ReadonlySet<string> = new Set(['pod_unknown', 'pod_ambiguous']);

export class RequestMetrics implements Renderer {
  readonly #metrics: Metrics;
  readonly #counts: RequestCounts;
  readonly #namespaces = new BoundedLabel(200);

  constructor(metrics: Metrics, byIdentity: boolean) {
    this.#metrics = metrics;
    this.#counts = createRequestCounts(metrics, byIdentity);
  }

  render(record: RequestRecord): void {
    const metrics = this.#metrics;
    const { route, reason, pod, decision } = record;
    metrics.inc('nmi_requests_total', { route: route.kind, reason });
    if (route.kind !== 'token' && route.kind !== 'host-token') return;
    if (decision === undefined) {
      // Without `/host/token` there is nothing at that path.
      if (reason !== 'not_found') this.#counts.add(pod, undefined, reason);
      return;
    }
    const { cache } = decision;
    this.#counts.add(pod, grantedIdentity(record), reason);
    const seconds = record.durationMs / 1000;
    this.#operation(record)(seconds);
    metrics.observe('nmi_request_duration_seconds', seconds, { route: route.kind, cache });
    if (cache !== 'none') metrics.inc('nmi_token_cache_requests_total', { outcome: cache });
    if (unknownCallers.has(reason)) {
      metrics.inc('aadpodidentity_kubernetes_api_operations_errors_count', {
        operation_type: 'get_pod_list',
      });
    }
  }

  hitsLike(first: RequestRecord): (hit: Hit, durationMs: number) => void {
    const observeOperation = this.#operation(first);
    const observe = this.#metrics.observer('nmi_request_duration_seconds', {
      route: 'token',
      cache: 'hit',
    });
    const count = this.#counts.ofHits(first.pod, grantedIdentity(first));
    return (_hit, durationMs) => {
      const seconds = durationMs / 1000;
      observeOperation(seconds);
      observe(seconds);
      count.hits++;
    };
  }

  throttled({ namespace }: Pod, limit: ThrottleLimit): void {
    const labels = { namespace: this.#namespaces.of(namespace), limit };
    this.#metrics.inc('nmi_throttled_requests_total', labels);
  }

  #operation({ route, status, pod, decision }: RequestRecord): Observe {
    return this.#metrics.observer('aadpodidentity_nmi_operations_duration_seconds', {
      operation_type: route.kind === 'host-token' ? hostTokenPath : tokenPath,
      status_code: String(status),
      namespace: pod === undefined ? '' : this.#namespaces.of(pod.namespace),
      resource: resourceLabel(decision?.resource ?? ''),
    });
  }
}

function grantedIdentity({ decision }: RequestRecord): Identity | undefined {
  return decision?.grant?.kind === 'granted' ? decision.grant.identity : undefined;
}
