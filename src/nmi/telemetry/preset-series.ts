/**
 * Series that exist from the first scrape on, at zero: an alert on a rate needs the series before
 * the first failure, and a missing series cannot be told from a typing error.
 */
import type { Metrics } from './metrics.ts';

const cacheOutcomes = ['hit', 'miss', 'coalesced', 'stale', 'negative', 'timeout', 'overloaded'];
const upstreamOutcomes = ['ok', 'identity_not_assigned', 'upstream_refused', 'upstream_throttled'];
const imdsOperations = ['adal_token_msi', 'adal_token_msi_userassignedid'];

/** A metric, a label with its values, and the other labels. */
const presets = [
  ['nmi_token_cache_requests_total', 'outcome', cacheOutcomes, {}],
  ['nmi_token_refreshes_total', 'outcome', ['ok', 'failed', 'deferred', 'skipped'], {}],
  [
    'nmi_upstream_requests_total',
    'outcome',
    [...upstreamOutcomes, 'upstream_down'],
    { source: 'imds' },
  ],
  ['aadpodidentity_imds_operations_errors_count', 'operation_type', imdsOperations, {}],
  ['aadpodidentity_kubernetes_api_operations_errors_count', 'operation_type', ['get_pod_list'], {}],
  ['nmi_requests_total', 'reason', ['ok', 'pod_unknown', 'upstream_down'], { route: 'token' }],
] as const;

export function presetSeries(metrics: Metrics): void {
  for (const [metric, label, values, others] of presets) {
    for (const value of values) metrics.inc(metric, { ...others, [label]: value }, 0);
  }
}
