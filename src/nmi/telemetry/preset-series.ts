/**
 * Series that exist from the first scrape on, at zero: an alert on a rate needs the series before
 * the first failure, and a missing series cannot be told from a typing error.
 */
import type { Metrics } from './metrics.ts';

const cacheOutcomes = ['hit', 'miss', 'joined', 'stale', 'held', 'late', 'overloaded'];
const refreshOutcomes = ['ok', 'failed', 'deferred', 'unwanted'];
const upstreamOutcomes = [
  'ok',
  'identity_not_assigned',
  'upstream_refused',
  'upstream_throttled',
  'upstream_down',
];
const imdsOperations = ['adal_token_msi', 'adal_token_msi_userassignedid'];

export function presetSeries(metrics: Metrics): void {
  for (const outcome of cacheOutcomes)
    metrics.inc('nmi_token_cache_requests_total', { outcome }, 0);
  for (const outcome of refreshOutcomes) metrics.inc('nmi_token_refreshes_total', { outcome }, 0);
  for (const outcome of upstreamOutcomes) {
    metrics.inc('nmi_upstream_requests_total', { source: 'imds', outcome }, 0);
  }
  for (const operation of imdsOperations) {
    const labels = { operation_type: operation };
    metrics.inc('aadpodidentity_imds_operations_errors_count', labels, 0);
  }
  metrics.inc(
    'aadpodidentity_kubernetes_api_operations_errors_count',
    { operation_type: 'get_pod_list' },
    0,
  );
  for (const reason of ['ok', 'pod_unknown', 'upstream_down']) {
    metrics.inc('nmi_requests_total', { route: 'token', reason }, 0);
  }
}
