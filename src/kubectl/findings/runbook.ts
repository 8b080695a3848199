/** The runbook: what each reason of a refusal and each finding means, and what to do. docs/kubectl.md is made of it. */
import type { RefusalReason } from '../../nmi/base/answers.ts';

export interface Page {
  readonly means: string;
  readonly fix: string;
}

interface FindingPage extends Page {
  readonly severity: 'error' | 'warning' | 'info';
}

const client = 'The request of the client is not one that the metadata service accepts.';
const oneMoment =
  'The state passes by itself: SDKs retry. If it lasts, look at kubectl nmi status.';

/** Reasons of the agent's answers. */
export const reasonPages = {
  metadata_header_missing: {
    means: 'The request has no header Metadata: true.',
    fix: 'Use an Azure SDK, or send the header.',
  },
  forwarded: {
    means: 'The request has X-Forwarded-For: it came through a proxy.',
    fix: 'Set NO_PROXY=169.254.169.254 in the container.',
  },
  path_invalid: { means: client, fix: 'Request /metadata/identity/oauth2/token.' },
  request_malformed: { means: client, fix: 'Use an Azure SDK, or correct the request.' },
  parameter_missing: {
    means: 'The request lacks a parameter that the error names, mostly resource or api-version.',
    fix: 'Add the parameter.',
  },
  parameter_duplicate: { means: 'The request has a parameter twice.', fix: 'Send it once.' },
  parameter_invalid: {
    means: 'A parameter has a value that the metadata service does not accept.',
    fix: 'Correct the value that the error names.',
  },
  selector_conflict: {
    means: 'The request names its identity in more than one way.',
    fix: 'Send one of client_id, object_id and msi_res_id.',
  },
  not_found: {
    means: 'The metadata service has no such path, or it is not passed through to pods.',
    fix: 'For a part of the metadata service that pods need: option --allow-metadata of the agent.',
  },
  method_not_allowed: { means: 'The path does not take this HTTP method.', fix: 'Use GET.' },
  request_timeout: {
    means: 'The client did not send its request in time.',
    fix: 'Look for an overloaded or stopped container.',
  },
  headers_too_large: {
    means: 'The headers of the request are too large.',
    fix: 'Send fewer headers.',
  },
  metadata_blocked: {
    means: 'The agent keeps this part of the metadata service from pods.',
    fix: 'Remove the option --block-instance-metadata where pods need it.',
  },
  host_only: {
    means: 'The path is for processes of the node only.',
    fix: 'Pods use /metadata/identity/oauth2/token.',
  },
  host_network_refused: {
    means: 'The pod is on the host network, and the agent refuses such pods.',
    fix: 'Take hostNetwork off the pod, or run the agent with --host-network=serve.',
  },
  caller_unattested: {
    means:
      'The connection did not come through the redirect of the node, so nothing proves whose it is.',
    fix: 'Connect again. If it lasts: kubectl nmi status, and look for raw sockets or sandboxed runtimes.',
  },
  agent_not_synced: {
    means: 'The agent has not read the cluster yet, or has lost the API server.',
    fix: oneMoment,
  },
  pod_unknown: {
    means: 'No running pod of the node has the address of the connection.',
    fix: oneMoment,
  },
  pod_ambiguous: {
    means: 'Two running pods of the node have the same address.',
    fix: 'Delete the pod that should not have it; kubectl get pods -A -o wide shows addresses.',
  },
  connection_outlived_pod: {
    means: 'The connection is older than the pod that has its address now.',
    fix: 'Connect again.',
  },
  no_binding_label: {
    means: 'The pod has no label aadpodidbinding.',
    fix: 'Put the label into the pod template: spec.template.metadata.labels. kubectl nmi identity assign prints a binding.',
  },
  binding_missing: {
    means:
      'No AzureIdentityBinding in the namespace of the pod has the label of the pod as its selector.',
    fix: 'Create one: kubectl nmi identity assign IDENTITY --selector LABEL --apply',
  },
  binding_pending: {
    means:
      'As binding_missing, for a pod or label younger than a minute: the binding may be on its way.',
    fix: 'Wait a minute; then as binding_missing.',
  },
  identity_missing: {
    means: 'The binding names an AzureIdentity that does not exist in its namespace.',
    fix: 'Create it (kubectl nmi identity add), or correct spec.azureIdentity of the binding.',
  },
  identity_pending: {
    means: 'As identity_missing, for objects younger than a minute.',
    fix: 'Wait a minute; then as identity_missing.',
  },
  identity_invalid: {
    means: 'The AzureIdentity has a field that cannot be used, which the error names.',
    fix: 'Correct the field.',
  },
  identity_not_owned: {
    means:
      'No AzureIdentityGrant gives the identity to the namespace of the pod, and the agent enforces owners.',
    fix: 'Have an administrator of the cluster add it to an AzureIdentityGrant; `nmi grants` prints what is missing.',
  },
  identity_unsupported: {
    means: 'The AzureIdentity has a type that this agent or node cannot serve.',
    fix: 'Use type 0 (user-assigned), 1 (secret), 2 (certificate) or 3 (federated).',
  },
  selector_not_bound: {
    means: 'The request names an identity that the pod is not bound to.',
    fix: 'Correct AZURE_CLIENT_ID of the container, or bind that identity too.',
  },
  identity_ambiguous: {
    means: 'Several identities are bound, the request names none, and the agent is strict.',
    fix: 'Set AZURE_CLIENT_ID in the container.',
  },
  identity_not_assigned: {
    means: 'Azure has not assigned the identity to the scale set of the node.',
    fix: 'Assign it: kubectl nmi identity assign IDENTITY shows the az lines for every node pool.',
  },
  resource_not_allowed: {
    means:
      'The AzureIdentity is limited to resources, and the one that is asked for is not among them.',
    fix: 'Add it to spec.allowedResources.',
  },
  upstream_refused: {
    means: 'The metadata service of the node refused the request.',
    fix: 'Read the text of the answer; it is the service’s own.',
  },
  resource_refused: {
    means: 'Entra ID does not know the resource, or the application may not ask for it.',
    fix: 'Check the resource, and that its service principal is in the tenant.',
  },
  identity_refused: {
    means: 'Entra ID refuses the application: it does not exist in the tenant or is disabled.',
    fix: 'Check spec.clientID and spec.tenantID.',
  },
  credential_refused: {
    means: 'Entra ID refuses the secret or certificate: wrong or expired.',
    fix: 'Renew it and update the Secret; the agent takes the new one within a minute.',
  },
  credential_invalid: {
    means: 'The Secret has no usable credential, or the agent may not read what it needs.',
    fix: 'Correct the Secret, or give the right that the error names.',
  },
  credential_missing: {
    means: 'The Secret or service account that the identity needs does not exist.',
    fix: 'Create it in the namespace of the AzureIdentity.',
  },
  credential_pending: {
    means: 'As credential_missing, for objects younger than a minute.',
    fix: 'Wait a minute; then as credential_missing.',
  },
  federation_refused: {
    means: 'Entra ID has no federated credential for this issuer and subject.',
    fix: 'Create it: kubectl nmi identity federate IDENTITY shows the az line.',
  },
  federation_pending: {
    means:
      'As federation_refused, for a grant younger than five minutes: Entra ID takes minutes to learn of it.',
    fix: 'Wait five minutes; then as federation_refused.',
  },
  policy_refused: {
    means: 'A policy of Entra ID (Conditional Access) refuses the token.',
    fix: 'Ask the administrators of the tenant; the answer has the trace id.',
  },
  upstream_throttled: {
    means: 'The metadata service or Entra ID answers 429, or too many fetches of this node wait.',
    fix: oneMoment,
  },
  upstream_down: { means: 'The metadata service or Entra ID does not answer.', fix: oneMoment },
  loop_detected: {
    means: 'The agent reached itself instead of the metadata service.',
    fix: 'Remove other redirects of 169.254.169.254 from the node.',
  },
  caller_throttled: {
    means: 'The pod asks more often than its share allows.',
    fix: 'Cache tokens in the application, as SDKs do when one credential object is kept.',
  },
  internal_error: {
    means: 'The agent failed.',
    fix: 'Report it with the log of the agent: kubectl nmi sysdump',
  },
} as const satisfies Record<RefusalReason, Page>;

/** What the plugin finds beyond what the agent answers. */
export const findingPages = {
  label_on_owner: {
    severity: 'error',
    means: 'A workload has the label aadpodidbinding itself, and its pod template has not.',
    fix: 'Move the label to the metadata of the pod template.',
  },
  client_id_not_bound: {
    severity: 'error',
    means: 'AZURE_CLIENT_ID of a container names an identity that the pod is not bound to.',
    fix: 'Set it to the client id of a bound identity.',
  },
  client_id_without_binding: {
    severity: 'warning',
    means: 'A container has AZURE_CLIENT_ID, and its pod is bound to no identity.',
    fix: 'Give the pod template the label aadpodidbinding.',
  },
  client_id_twice: {
    severity: 'warning',
    means: 'Two identities of a pod have the same client id.',
    fix: 'Remove one of the bindings.',
  },
  identity_by_age: {
    severity: 'info',
    means: 'Several identities are bound, and requests that name none get the oldest.',
    fix: 'Set AZURE_CLIENT_ID in the container.',
  },
  network_policy: {
    severity: 'error',
    means: 'Network policies keep the pod from the agent.',
    fix: 'Allow egress to 169.254.25.79/32, TCP port 2579.',
  },
  workload_identity_too: {
    severity: 'warning',
    means: 'The pod is bound by label and set up for Workload Identity too.',
    fix: 'Remove one of the two.',
  },
  workload_identity_incomplete: {
    severity: 'warning',
    means: 'The pod is labeled for Workload Identity, and its service account has no client id.',
    fix: 'Annotate the service account with azure.workload.identity/client-id.',
  },
  exception_before_binding: {
    severity: 'warning',
    means: 'An exception matches a pod that has a binding, and comes first.',
    fix: 'Remove the label of the exception from the pod.',
  },
  exception_elsewhere: {
    severity: 'warning',
    means: 'An exception in another namespace has labels of the pod.',
    fix: 'Create the exception in the namespace of the pod.',
  },
  exception_without_labels: {
    severity: 'warning',
    means: 'An exception has no podLabels and matches nothing.',
    fix: 'Set spec.podLabels, or delete it.',
  },
  exception_unused: {
    severity: 'info',
    means: 'An exception matches no pod of its namespace.',
    fix: 'Check spec.podLabels, or delete it.',
  },
  binding_dangling: {
    severity: 'error',
    means: 'A binding names an AzureIdentity that does not exist in its namespace.',
    fix: 'Create it, or correct spec.azureIdentity.',
  },
  binding_without_selector: {
    severity: 'error',
    means: 'A binding has an empty selector and matches nothing.',
    fix: 'Set spec.selector to the label value of the pods.',
  },
  binding_unused: {
    severity: 'info',
    means: 'A binding matches no pod of its namespace.',
    fix: 'Label the pod template, or delete the binding.',
  },
  identity_unbound: {
    severity: 'info',
    means: 'No binding names the identity.',
    fix: 'Bind it: kubectl nmi identity assign IDENTITY --apply',
  },
  object_unusable: {
    severity: 'error',
    means: 'An object has a field of the wrong type, and the agent leaves it out.',
    fix: 'Correct the field.',
  },
  field_unknown: {
    severity: 'error',
    means: 'An object has a field that does not exist; names are case-sensitive.',
    fix: 'Correct the name of the field.',
  },
  agent_missing: {
    severity: 'error',
    means: 'A node has no agent: its pods get no tokens, or those of the node.',
    fix: 'Look at the DaemonSet: its node selector, tolerations and events.',
  },
  agent_not_ready: {
    severity: 'error',
    means: 'The agent of a node is not ready.',
    fix: 'kubectl nmi logs --node NODE shows why.',
  },
  agents_on_node: {
    severity: 'error',
    means: 'A node has two agents, which cannot share its ports.',
    fix: 'Remove one of the DaemonSets.',
  },
  agent_versions: {
    severity: 'warning',
    means: 'Agents of several versions run.',
    fix: 'Wait for the rollout: kubectl nmi status --wait',
  },
  old_nmi: {
    severity: 'error',
    means: 'The NMI of aad-pod-identity still runs; it opens the node when it stops.',
    fix: 'Switch its release in place: see "Upgrade from aad-pod-identity" in the README.',
  },
  old_mic: {
    severity: 'warning',
    means: 'The MIC of aad-pod-identity still runs; managed mode has no use for it.',
    fix: 'Remove its Deployment.',
  },
  crd_missing: {
    severity: 'error',
    means: 'The cluster lacks a custom resource definition.',
    fix: 'kubectl apply -f deploy/crds.yaml',
  },
  crd_old: {
    severity: 'warning',
    means:
      'A custom resource definition lacks fields of this version: the API server drops them from objects.',
    fix: 'kubectl apply -f deploy/crds.yaml',
  },
  agent_rights: {
    severity: 'error',
    means: 'The service account of the agent lacks a right.',
    fix: 'Apply the ClusterRole of the release.',
  },
  own_rights: {
    severity: 'info',
    means: 'You lack a right that this plugin has a use for.',
    fix: 'Ask for it, or leave it: the plugin names what it does not know.',
  },
  kernel_old: {
    severity: 'info',
    means: 'The kernel of the node is older than 5.10: the agent uses iptables there.',
    fix: 'Update the node image.',
  },
  server_old: {
    severity: 'warning',
    means: 'The API server is older than Kubernetes 1.28.',
    fix: 'Upgrade the cluster.',
  },
  image_not_pulled: {
    severity: 'error',
    means: 'A node cannot pull the image of the agent.',
    fix: 'Check the name of the image and the rights of the node at its registry.',
  },
  policy_engine: {
    severity: 'info',
    means: 'An admission policy looks at pods and may refuse those of the agent.',
    fix: 'Exempt the namespace of the agent, if its pods are not created.',
  },
  nodes_missing: {
    severity: 'warning',
    means: 'The cluster has no Linux node that an agent could run on.',
    fix: 'Add a node pool.',
  },
} as const satisfies Record<string, FindingPage>;

export type FindingCode = keyof typeof findingPages;

const pages: Readonly<Record<string, Page>> = { ...reasonPages, ...findingPages };

export const allCodes: readonly string[] = Object.keys(pages);

export function findPage(code: string): Page | undefined {
  return Object.hasOwn(pages, code) ? pages[code] : undefined;
}

export function pageOf(code: FindingCode | RefusalReason): Page & { readonly link: string } {
  const { means, fix } = pages[code] ?? { means: '', fix: '' };
  return { means, fix, link: `docs/kubectl.md#${code}` };
}
