/** The metrics of requests. A hit costs three increments; its counters are updated at a scrape. */
import type { Identity } from '../../cache/index/objects.ts';
import { BoundedLabel, resourceLabel } from './bounded-label.ts';
import type { RequestRecord } from '../server/request-record.ts';
import { hostTokenPath, tokenPath } from '../server/route.ts';
import type { Observe } from './bound-histogram.ts';
import type { Metrics } from './metrics.ts';
import type { Renderer } from './renderer.ts';
import { createRequestCounts } from './request-counts.ts';

/** Reasons for callers that are no known pod; the replaced system counted these. */
const unknownCallers: ReadonlySet<string> = new Set(['pod_unknown', 'pod_ambiguous']);

export function createRequestMetrics(metrics: Metrics, byIdentity: boolean): Required<Renderer> {
  const counts = createRequestCounts(metrics, byIdentity);
  const namespaces = new BoundedLabel(200);

  function operation({ route, status, pod, decision }: RequestRecord): Observe {
    return metrics.observer('aadpodidentity_nmi_operations_duration_seconds', {
      operation_type: route.kind === 'host-token' ? hostTokenPath : tokenPath,
      status_code: String(status),
      namespace: pod === undefined ? '' : namespaces.of(pod.namespace),
      resource: resourceLabel(decision?.resource ?? ''),
    });
  }

  return {
    render(record) {
      const { route, reason, pod, decision } = record;
      metrics.inc('nmi_requests_total', { route: route.kind, reason });
      if (route.kind !== 'token' && route.kind !== 'host-token') return;
      if (decision === undefined) {
        // Without `/host/token` there is nothing at that path.
        if (reason !== 'not_found') counts.add(pod, undefined, reason);
        return;
      }
      const { cache } = decision;
      counts.add(pod, grantedIdentity(record), reason);
      const seconds = record.durationMs / 1000;
      operation(record)(seconds);
      metrics.observe('nmi_request_duration_seconds', seconds, { route: route.kind, cache });
      if (cache !== 'none') metrics.inc('nmi_token_cache_requests_total', { outcome: cache });
      if (!unknownCallers.has(reason)) return;
      const labels = { operation_type: 'get_pod_list' };
      metrics.inc('aadpodidentity_kubernetes_api_operations_errors_count', labels);
    },

    hitsLike(first) {
      const observeOperation = operation(first);
      const labels = { route: 'token', cache: 'hit' };
      const observe = metrics.observer('nmi_request_duration_seconds', labels);
      const count = counts.ofHits(first.pod, grantedIdentity(first));
      return (_hit, durationMs) => {
        const seconds = durationMs / 1000;
        observeOperation(seconds);
        observe(seconds);
        count.hits++;
      };
    },

    throttled({ namespace }, limit) {
      const labels = { namespace: namespaces.of(namespace), limit };
      metrics.inc('nmi_throttled_requests_total', labels);
    },
  };
}

function grantedIdentity({ decision }: RequestRecord): Identity | undefined {
  return decision?.grant?.kind === 'granted' ? decision.grant.identity : undefined;
}
