/**
 * The alert that an operator gets when a fault of the lab lasts on a real node. Each scenario of
 * the lab is in one of the two lists: a new one needs an alert, or a reason why it needs none.
 */
export interface FaultAlerts {
  readonly scenario: string;
  /** The first one names the cause. */
  readonly alerts: readonly string[];
  /** What the alert shows: a label's value, or the readiness condition. */
  readonly shown: string;
}

const fault = (scenario: string, alerts: string, shown: string): FaultAlerts => ({
  scenario,
  alerts: alerts.split(' '),
  shown,
});

export const faultAlerts: readonly FaultAlerts[] = [
  fault('not-assigned', 'NmiTokensRunOut', 'the identity; reason identity_not_assigned'),
  fault('strict-identity', 'NmiPodsRefused', 'reason identity_ambiguous'),
  fault('identity-not-owned-warned', 'NmiOwnersNotEnforced', 'the cluster; the log names objects'),
  fault('identity-not-owned', 'NmiPodsRefused', 'reason identity_not_owned'),
  fault('exception-not-owned', 'NmiPodsRefused', 'reason identity_not_owned'),
  fault('application-not-owned', 'NmiPodsRefused', 'reason identity_not_owned'),
  fault('binding-never-comes', 'NmiPodsRefused', 'reason binding_missing'),
  fault('metadata-header', 'NmiPodsRefused', 'reason forwarded'),
  fault('parameters', 'NmiPodsRefused', 'reason selector_conflict'),
  fault('upstream-throttled', 'NmiUpstreamThrottled', 'source imds'),
  fault('upstream-down', 'NmiUpstreamDown NmiTokensRunOut', 'source imds; the identities'),
  fault('secret-rotated', 'NmiTokensRunOut', 'the identity; reason credential_refused'),
  fault('federated-pods', 'NmiTokensRunOut', 'the identity; reason federation_refused'),
  fault('identity-bindings-trouble', 'NmiTokensRunOut NmiUpstreamDown', 'the identity; its source'),
  fault('entra-trouble', 'NmiUpstreamDown NmiUpstreamThrottled', 'source of the identity'),
  fault('binding-deleted', 'NmiPodsRefused', 'reason binding_missing'),
  fault('identity-deleted', 'NmiPodsRefused', 'reason identity_missing'),
  fault('five-deleted', 'NmiPodsRefused', 'reason binding_missing, identity_missing'),
  fault('unknown-address', 'NmiRequestsFail', 'the share of failures; reason pod_unknown'),
  fault('shared-address', 'NmiAddressesShared', 'the agent of the node'),
  fault('rules-flushed', 'NmiRedirectRepaired', 'repairs in an hour'),
  fault('rules-flushed-long', 'NmiRedirectRepaired', 'repairs in an hour'),
  fault('agent-killed', 'NmiNodeWithoutReadyAgent NmiAgentsAbsent', 'the node'),
  fault('agent-stopped', 'NmiNodeWithoutReadyAgent NmiAgentsAbsent', 'the node'),
  fault('redirect-before-agent', 'NmiNodeWithoutReadyAgent', 'the node'),
  fault('cold-boot', 'NmiAgentPodsMissing', 'the number of nodes'),
  fault('unrecorded-connection', 'NmiCallersUnattested', 'the agent of the node'),
  fault('other-pods-proxy', 'NmiCallersUnattested', 'the agent of the node'),
  fault('nested-container', 'NmiCallersUnattested', 'the agent of the node, on a shared bridge'),
  fault('sandboxed-pod', 'NmiCallersUnattested', 'the agent of the node, on a shared bridge'),
  fault('unrecorded-refused', 'NmiCallersUnattested', 'the agent of the node'),
  fault('second-interface', 'NmiRequestsFail', 'the share of failures; reason pod_unknown'),
  fault('unrecorded-flood', 'NmiConnectionsRefused', 'the limit'),
  fault('attacks', 'NmiKernelRefusesConnects NmiConnectionsRefused', 'the limit'),
  fault('connect-storm', 'NmiKernelRefusesConnects', 'the rate'),
  fault('host-network-refused', 'NmiPodsRefused', 'reason host_network_refused'),
  fault('privilege-split', 'NmiRedirectDown NmiNodeWithoutReadyAgent', 'the mode'),
  fault('probes', 'NmiRedirectDown', 'the mode'),
  fault('address-reuse-window', 'NmiNotReady NmiWatchStale', 'condition pod_ips_current'),
  fault('api-away-at-start', 'NmiNotReady', 'condition watches'),
  fault('api-away-later', 'NmiWatchStale', 'the resource'),
  fault('rights-run-out', 'NmiRightsOld NmiNotReady', 'condition rights_current'),
];

/** Scenarios without a fault, or with a fault of a single client. */
export const withoutAlert: readonly string[] = `
  one-identity two-identities resource-id-only two-namespaces no-identity
  exception not-excepted late-objects address-reused kept-connection-outlives-pod
  token-path-spellings methods other-clouds passthrough passthrough-policy
  demo-pod four-types certificate-forms federated-node auxiliary-tenants
  federation-refused-by-mistake identity-bindings application-chain agent-identity chain-by-federation
  workload-identity identity-edited identity-revoked label-changed pod-phases
  agent-upgraded agent-updates containers-killed fresh-nodes
  two-at-once pods-by-the-dozen connection-bursts busy-connections miss-storm probe-storm
  leak older-connection old-agent-beside redirect-verbs iptables-legacy iptables-nft
  imds-restriction forged-address mapped-address host-network-pods raw-frames forged-ports
  gone-pod-cut address-reuse-storm sidecar-proxy sidecar-proxy-excluded sidecar-proxy-bypassed
  user-namespace forged-on-link foreign-record unrecorded-address-reuse shared-link
  host-token-off host-token no-token-in-logs`
  .trim()
  .split(/\s+/);

/** For docs/alerts.md. */
export function faultRows(): readonly (readonly string[])[] {
  return faultAlerts.map(({ scenario, alerts, shown }) => [
    `\`${scenario}\``,
    alerts.map((alert) => `\`${alert}\``).join(', '),
    shown,
  ]);
}
