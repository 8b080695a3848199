/**
 * Every metric as data: from it come the series, the table in the README and the lint test.
 * Labels are closed words or bounded sets; never a pod, an address, a client id or a resource as
 * the caller wrote it.
 */

export interface MetricRow {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
  /** Of a histogram. */
  readonly buckets: readonly number[] | undefined;
}

const row =
  (type: MetricRow['type']) =>
  (labels: readonly string[], help: string, buckets?: readonly number[]): MetricRow => ({
    type,
    labels,
    help,
    buckets,
  });

const counter = row('counter');
const gauge = row('gauge');
const histogram = row('histogram');

/** The four families of the replaced system, names, labels and buckets unchanged. */
export const oldMetrics = {
  aadpodidentity_nmi_operations_duration_seconds: histogram(
    ['namespace', 'operation_type', 'resource', 'status_code'],
    'Duration of token requests. Labels are bounded: unusual resources and namespaces are "other".',
    [0.5, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100],
  ),
  aadpodidentity_imds_operations_duration_seconds: histogram(
    ['operation_type'],
    'Duration of successful token fetches upstream.',
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 10],
  ),
  aadpodidentity_imds_operations_errors_count: counter(
    ['operation_type'],
    'Failed token fetches upstream.',
  ),
  aadpodidentity_kubernetes_api_operations_errors_count: counter(
    ['operation_type'],
    'get_pod_list: token requests whose caller is no known pod.',
  ),
} as const satisfies Record<string, MetricRow>;

export const newMetrics = {
  nmi_requests_total: counter(
    ['route', 'reason'],
    'Requests on the metadata address by route and reason.',
  ),
  nmi_request_duration_seconds: histogram(
    ['route', 'cache'],
    'Time from the parsed request until its answer is made, by how a token was found ("none" where none was). Answers from memory are written at the end of the event loop’s turn.',
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10],
  ),
  nmi_token_cache_requests_total: counter(
    ['outcome'],
    'Token look-ups by outcome: hit, miss, joined, stale, held, late, overloaded.',
  ),
  nmi_token_refreshes_total: counter(
    ['outcome'],
    'Background refreshes that were due: ok, failed, deferred (no budget now), unwanted (left to expire).',
  ),
  nmi_token_cache_entries: gauge([], 'Tokens kept in memory.'),
  nmi_upstream_requests_total: counter(
    ['source', 'outcome'],
    'Token fetches by source and outcome.',
  ),
  nmi_upstream_duration_seconds: histogram(
    ['source'],
    'Duration of token fetches, failed ones included.',
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
  ),
  nmi_held_requests: gauge([], 'Requests that wait for a pod or binding to become known.'),
  nmi_connections: gauge([], 'Open connections of pods.'),
  nmi_connections_refused_total: counter(
    ['whose'],
    'Connections closed at once because there are too many: of this caller, or of all.',
  ),
  nmi_watch_synced: gauge(['resource'], '1 once the resource was listed.'),
  nmi_watch_age_seconds: gauge(
    ['resource'],
    'Seconds since the API server was last heard on this watch.',
  ),
  nmi_watch_staleness_seconds: gauge(
    ['resource'],
    'Seconds since what is known of the resource was last proven current; up to 101 when all is well.',
  ),
  nmi_watch_errors_total: counter(
    ['resource', 'kind'],
    'Failures of lists and watches: outage, refusal, expiry (of the version), exception (of ours).',
  ),
  nmi_watch_relists_total: counter(['resource'], 'Lists of the resource after the first one.'),
  nmi_index_pods: gauge(['kind'], 'Pods of this node: all, bound, host_network.'),
  nmi_index_ambiguous_ips: gauge(
    [],
    'Addresses that more than one running pod has; none of those pods is served.',
  ),
  nmi_index_objects: gauge(['kind'], 'Custom resources known: identities, bindings, exceptions.'),
  nmi_ebpf_connects_total: counter(
    ['outcome'],
    'Connects to the metadata address that the eBPF programs saw: redirected, exempt, or refused because too many are open (limit, full).',
  ),
  nmi_redirect_caught_total: counter(
    [],
    'Connections that the eBPF programs did not redirect and that netfilter behind them did, as of the scrape before.',
  ),
  nmi_redirect_up: gauge(['mode'], '1 while the redirect was read back as wanted.'),
  nmi_redirect_installs_total: counter(
    ['outcome'],
    'Checks of the redirect: unchanged, installed, repaired, failed.',
  ),
  nmi_ready: gauge(['condition'], '1 while the readiness condition holds.'),
  nmi_event_loop_delay_seconds: gauge(
    ['quantile'],
    'Delay of the event loop since the last scrape.',
  ),
  nmi_build_info: gauge(['version', 'commit'], 'Always 1; the labels say what runs.'),
} as const satisfies Record<string, MetricRow>;
