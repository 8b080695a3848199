/** Series that are zero at first: an alert on a rate needs them before the first failure. */
import { refusals, type Reason } from '../base/answers.ts';
import type { Route } from '../server/route.ts';
import { credentialKinds } from '../sources/entra/credentials/kinds.ts';
import type { FailureReason } from '../sources/source.ts';
import type { Metrics } from './metrics.ts';

const cacheOutcomes = ['hit', 'miss', 'coalesced', 'stale', 'negative', 'timeout', 'overloaded'];
const imdsOperations = ['adal_token_msi', 'adal_token_msi_userassignedid'];

const entra = credentialKinds.map(({ kind }) => kind);
const allSources = ['imds', ...entra];
const sourcesByReason: Readonly<Record<FailureReason, readonly string[]>> = {
  identity_not_assigned: ['imds'],
  upstream_refused: allSources,
  upstream_throttled: allSources,
  upstream_down: allSources,
  resource_refused: entra,
  identity_refused: entra,
  credential_refused: entra,
  credential_missing: entra,
  credential_invalid: entra,
  federation_refused: entra,
  federation_pending: entra,
  policy_refused: entra,
};

/** Reasons that no token request ends with, and their route. All others have the token route. */
const routeOf: ReadonlyMap<string, Route['kind']> = new Map<Reason, Route['kind']>([
  ['path_invalid', 'refused'],
  ['not_found', 'refused'],
  ['request_malformed', 'refused'],
  ['request_timeout', 'refused'],
  ['headers_too_large', 'refused'],
  ['metadata_blocked', 'passthrough'],
  ['host_only', 'host-token'],
]);

const presets = [
  ['nmi_token_cache_requests_total', 'outcome', cacheOutcomes],
  ['nmi_token_refreshes_total', 'outcome', ['ok', 'failed', 'deferred', 'skipped']],
  ['aadpodidentity_imds_operations_errors_count', 'operation_type', imdsOperations],
  ['aadpodidentity_kubernetes_api_operations_errors_count', 'operation_type', ['get_pod_list']],
] as const;

export function presetSeries(metrics: Metrics): void {
  for (const [metric, label, values] of presets) {
    for (const value of values) metrics.inc(metric, { [label]: value }, 0);
  }
  for (const reason of ['ok', ...Object.keys(refusals)]) {
    metrics.inc('nmi_requests_total', { route: routeOf.get(reason) ?? 'token', reason }, 0);
  }
  const sourcesByOutcome = { ok: sourcesByReason.upstream_down, ...sourcesByReason };
  for (const [outcome, sources] of Object.entries(sourcesByOutcome)) {
    for (const source of sources)
      metrics.inc('nmi_upstream_requests_total', { source, outcome }, 0);
  }
}
