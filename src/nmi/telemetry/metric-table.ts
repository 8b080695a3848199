/** Every metric. Labels have bounded values; never an address, or a resource as it was written. */

export interface MetricRow {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
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
    'Duration of token requests. Unusual resources and namespaces are "other".',
    [0.5, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100],
  ),
  aadpodidentity_imds_operations_duration_seconds: histogram(
    ['operation_type'],
    'Duration of successful token requests to IMDS or Entra ID.',
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 10],
  ),
  aadpodidentity_imds_operations_errors_count: counter(
    ['operation_type'],
    'Failed token requests to IMDS or Entra ID.',
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
  nmi_token_requests_total: counter(
    ['namespace', 'reason'],
    'Token requests by namespace of the pod (`-`: the caller is no known pod) and reason. Of 200 namespaces, later ones are "other".',
  ),
  nmi_identity_token_requests_total: counter(
    ['namespace', 'identity', 'reason'],
    'With --identity-metrics: token requests by AzureIdentity and reason. Of 50 identities of a namespace and 500 in all, later ones are "other".',
  ),
  nmi_request_duration_seconds: histogram(
    ['route', 'cache'],
    'Time from the parsed request to its answer, by cache outcome ("none" without a token look-up).',
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10],
  ),
  nmi_token_cache_requests_total: counter(
    ['outcome'],
    'Token look-ups by outcome: hit, miss, coalesced (waited for the fetch of another request), stale, negative (a recent failure), timeout, overloaded.',
  ),
  nmi_token_refreshes_total: counter(
    ['outcome'],
    'Background refreshes that were due: ok, failed, deferred (rate limit), skipped (no pod uses the token any more).',
  ),
  nmi_token_cache_entries: gauge([], 'Tokens kept in memory.'),
  nmi_token_soonest_expiry_seconds: gauge(
    ['source', 'refresh'],
    'Least remaining life of the tokens in use, by source and refresh: ok, or failing (the last refresh of the token failed).',
  ),
  nmi_identities_refused: gauge(
    ['cause', 'reason'],
    'Identities in use that their source refused last, by cause: object (the identity, its credential or its assignment), platform (IMDS or Entra ID).',
  ),
  nmi_identity_refused_expiry_seconds: gauge(
    ['namespace', 'identity', 'cause', 'reason'],
    'Of each identity in use that its source refused last: seconds until its first cached token expires; 0 without one. `serviceaccount:NAME` without an AzureIdentity, `node` for excepted pods. Of 200 identities, those whose tokens end first; the rest are "other".',
  ),
  nmi_certificate_expiration_timestamp_seconds: gauge(
    ['namespace', 'name'],
    'When the certificate in a Secret expires that proves an identity of this node, in seconds since the epoch. Of a namespace, the 20 that expire first.',
  ),
  nmi_upstream_last_success_seconds: gauge(
    ['source'],
    'Seconds since the last token from this source; absent before the first.',
  ),
  nmi_upstream_requests_total: counter(
    ['source', 'outcome'],
    'Token requests to IMDS or Entra ID by source and outcome.',
  ),
  nmi_upstream_duration_seconds: histogram(
    ['source'],
    'Duration of token requests to IMDS or Entra ID, including failed ones.',
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
  ),
  nmi_waiting_requests: gauge([], 'Requests that wait for their pod, binding or identity.'),
  nmi_connections: gauge([], 'Open connections of pods.'),
  nmi_connections_refused_total: counter(
    ['limit'],
    'Connections closed because of a limit: per_caller or total.',
  ),
  nmi_throttled_requests_total: counter(
    ['namespace', 'limit'],
    'Requests and connections beyond a limit of their pod, by its namespace: connections, connection_rate (beyond half of the rate that the kernel lets through), tokens, requests, pending_objects, resources, metadata.',
  ),
  nmi_events_total: counter(
    ['outcome'],
    'Events for the API server: written, failed, dropped (no room; counted for each refusal).',
  ),
  nmi_watch_synced: gauge(['resource'], '1 if the resource has been listed.'),
  nmi_watch_last_event_seconds: gauge(
    ['resource'],
    'Seconds since the last event or bookmark of this watch; absent before the first.',
  ),
  nmi_watch_staleness_seconds: gauge(
    ['resource'],
    'Seconds since the cached objects were last proven current; at most 101 in normal operation.',
  ),
  nmi_watch_failing_seconds: gauge(
    ['resource'],
    'Seconds since this watch began to fail; 0 while it does not. `nmi explain` has the last error.',
  ),
  nmi_watch_errors_total: counter(
    ['resource', 'kind'],
    'Failed lists and watches: outage, refusal (no right), expiry (version too old), exception (a bug).',
  ),
  nmi_watch_relists_total: counter(['resource'], 'Lists of the resource after the first.'),
  nmi_watch_objects_skipped_total: counter(
    ['resource'],
    'Unusable or too large versions of objects, which grant nothing; the log names them.',
  ),
  nmi_watch_objects_bytes: gauge(
    ['resource'],
    'Estimated memory of the stored objects. Those of one namespace take at most 24 MiB for each resource, and 1 MiB for exceptions; the rest is skipped.',
  ),
  nmi_acts_as_node: gauge(
    ['purpose'],
    '1 if the API server is asked as this node, which holds the agent to its pods; 0 if as the service account. By purpose: pods, tokens; absent before the first answer.',
  ),
  nmi_index_pods: gauge(['kind'], 'Pods of this node: all, bound, host_network.'),
  nmi_index_ambiguous_ips: gauge(
    [],
    'Addresses that several running pods have; none of these pods is served.',
  ),
  nmi_index_objects: gauge(
    ['kind'],
    'Cached custom resources: identities, bindings, exceptions, grants.',
  ),
  nmi_identities_not_owned: gauge(
    ['mode'],
    'AzureIdentities and exceptions in use on this node without an AzureIdentityGrant, by --identity-owners: warn serves them, enforce refuses them.',
  ),
  nmi_conditions_writes_total: counter(
    ['outcome'],
    'Writes of status conditions by `nmi conditions`: written, conflict (the object had changed, tried again), deleted (the object no longer exists), rejected (the definition or a policy does not accept the object), forbidden (no right, or a policy refuses the object), failed (API server or a webhook unavailable). Every write that was not accepted is tried again after a while.',
  ),
  nmi_ebpf_connects_total: counter(
    ['outcome'],
    'Connects to the metadata address, counted by the eBPF programs: redirected, direct (by a proxy in a pod, to the address of the agent itself), exempt (the agent, and pods on the host network without the label of a binding), limit (refused, too many of this pod), rate (refused, too fast for one pod), full (no room for a record, or another pod took the same address and port; answered with 503).',
  ),
  nmi_unrecorded_callers_total: counter(
    ['outcome'],
    'With eBPF, connections without a record of their caller: by_link (identified by address and network link), refused (--unrecorded-callers, or a link that pods share).',
  ),
  nmi_redirect_up: gauge(['mode'], '1 if the redirect is in place after the last check.'),
  nmi_redirect_reconciles_total: counter(
    ['outcome'],
    'Checks of the redirect by the process that keeps it: unchanged, installed, repaired (drift), failed.',
  ),
  nmi_ready: gauge(['condition'], '1 if the readiness condition is met.'),
  nmi_audit_records_total: counter(
    ['outcome'],
    'Audit records: written, dropped (a full or slow disk, or nobody reads standard output; the log names the cause). Without --audit-log there are none.',
  ),
  nmi_event_loop_delay_seconds: gauge(
    ['stat'],
    'How late timers of the agent fired since the last scrape: p50, p99, max. Usually about a millisecond; more means too little CPU.',
  ),
  process_cpu_seconds_total: counter([], 'User and system CPU time of the agent.'),
  process_resident_memory_bytes: gauge([], 'Resident memory of the agent.'),
  process_start_time_seconds: gauge([], 'Start of the agent, in seconds since the epoch.'),
  process_open_fds: gauge([], 'Open file descriptors of the agent.'),
  process_max_fds: gauge([], 'Limit of open file descriptors of the agent.'),
  nmi_build_info: gauge(['version', 'commit'], 'Always 1; version and commit of the agent.'),
} as const satisfies Record<string, MetricRow>;
