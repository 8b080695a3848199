/** The half of the code table that answers to pods use. */
import type { RefusalReason } from '../base/answers.ts';

export interface AnswerCode {
  readonly means: string;
  readonly check: string;
  readonly fix: string;
}

const client = 'The request of the client is not one that the metadata service accepts.';
const oneMoment = 'The state passes by itself: SDKs retry. If it lasts, see kubectl nmi doctor.';

export const answerCodes = {
  metadata_header_missing: {
    means: 'The request has no header Metadata: true.',
    fix: 'Use an Azure SDK, or send the header.',
    check: 'Look at the request that the client sends.',
  },
  forwarded: {
    means: 'The request has X-Forwarded-For: it came through a proxy.',
    fix: 'Set NO_PROXY=169.254.169.254 in the container.',
    check: 'Look at HTTP_PROXY and NO_PROXY of the container.',
  },
  path_invalid: {
    means: client,
    fix: 'Request /metadata/identity/oauth2/token.',
    check: "Look at the path in the agent's log line.",
  },
  request_malformed: {
    means: client,
    fix: 'Use an Azure SDK, or correct the request.',
    check: 'Look at the request that the client sends.',
  },
  parameter_missing: {
    means: 'The request lacks a parameter that the error names, mostly resource or api-version.',
    fix: 'Add the parameter.',
    check: "Read the parameter's name in the error.",
  },
  parameter_duplicate: {
    means: 'The request has a parameter twice.',
    fix: 'Send it once.',
    check: "Read the parameter's name in the error.",
  },
  parameter_invalid: {
    means: 'A parameter has a value that the metadata service does not accept.',
    fix: 'Correct the value that the error names.',
    check: "Read the parameter's name and value in the error.",
  },
  selector_conflict: {
    means: 'The request names its identity in more than one way.',
    fix: 'Send one of client_id, object_id and msi_res_id.',
    check: "Read the parameters' names in the error.",
  },
  not_found: {
    means: 'The metadata service has no such path, or it is not passed through to pods.',
    fix: 'For a part of the metadata service that pods need: option --allow-metadata of the agent.',
    check: "Look at the path in the agent's log line, and at --allow-metadata.",
  },
  method_not_allowed: {
    means: 'The path does not take this HTTP method.',
    fix: 'Use GET.',
    check: "Look at the method in the agent's log line.",
  },
  request_timeout: {
    means: 'The client did not send its request in time.',
    fix: 'Look for an overloaded or stopped container.',
    check: 'Look for CPU throttling of the container.',
  },
  headers_too_large: {
    means: 'The headers of the request are too large.',
    fix: 'Send fewer headers.',
    check: 'Look at the headers that the client sends.',
  },
  metadata_blocked: {
    means: 'The agent keeps this part of the metadata service from pods.',
    fix: 'Remove the option --block-instance-metadata where pods need it.',
    check: 'Look at --block-instance-metadata and --allow-metadata of the agent.',
  },
  host_only: {
    means: 'The path is for processes of the node only.',
    fix: 'Pods use /metadata/identity/oauth2/token.',
    check: 'Look at the path that the client requests.',
  },
  host_network_refused: {
    means: 'The pod is on the host network, and the agent refuses such pods.',
    fix: 'Take hostNetwork off the pod, or run the agent with --host-network=serve.',
    check: '`kubectl get pod POD -o jsonpath={.spec.hostNetwork}`',
  },
  caller_unattested: {
    means:
      'The eBPF programs have no record of the connection, and its address does not prove a pod: pods share a network link, or --unrecorded-callers=refuse is set.',
    fix: 'A proxy, NAT inside the pod or a sandboxed runtime: see docs/meshes.md. Otherwise connect again.',
    check: '`nmi redirect verify` on the node; proxies, runtime class and capabilities of the pod.',
  },
  agent_not_synced: {
    means: 'The agent has not read the cluster yet, or has lost the API server.',
    fix: oneMoment,
    check: '`/readyz` of the agent on that node.',
  },
  pod_unknown: {
    means:
      'No running pod of the node has the address of the connection, or the one that has it is behind another link of the node.',
    fix: oneMoment,
    check: 'nmi_watch_staleness_seconds of the agent on that node.',
  },
  pod_ambiguous: {
    means: 'Two running pods of the node have the same address.',
    fix: 'Delete the pod that should not have it; kubectl get pods -A -o wide shows addresses.',
    check: '`kubectl get pods -A -o wide`, and look for the address twice.',
  },
  connection_outlived_pod: {
    means: 'The connection is older than the pod that has its address now.',
    fix: 'Connect again.',
    check: 'The next connection is served.',
  },
  no_binding_label: {
    means: 'The pod has no label aadpodidbinding.',
    fix: 'Put the label into the pod template: spec.template.metadata.labels. kubectl nmi identity assign prints a binding.',
    check: '`kubectl get pod POD --show-labels`',
  },
  binding_missing: {
    means:
      'No AzureIdentityBinding in the namespace of the pod has the label of the pod as its selector.',
    fix: 'Create one: kubectl nmi identity assign IDENTITY --selector LABEL --apply',
    check:
      '`kubectl get azureidentitybindings`: compare SELECTOR with the label, letter by letter.',
  },
  binding_pending: {
    means:
      'No AzureIdentityBinding has the label of the pod yet; pod or label is younger than a minute, so one may be on its way.',
    fix: 'Wait a minute. If it lasts, create the binding: kubectl nmi identity assign IDENTITY --selector LABEL --apply',
    check:
      '`kubectl get azureidentitybindings`: compare SELECTOR with the label, letter by letter.',
  },
  identity_missing: {
    means: 'The binding names an AzureIdentity that does not exist in its namespace.',
    fix: 'Create it (kubectl nmi identity add), or correct spec.azureIdentity of the binding.',
    check: '`kubectl get azureidentities`: compare names, letter by letter.',
  },
  identity_pending: {
    means:
      'The binding names an AzureIdentity that does not exist yet; the objects are younger than a minute, so it may be on its way.',
    fix: 'Wait a minute. If it lasts, create it (kubectl nmi identity add), or correct spec.azureIdentity of the binding.',
    check: '`kubectl get azureidentities`: compare names, letter by letter.',
  },
  identity_invalid: {
    means: 'The AzureIdentity has a field that cannot be used, which the error names.',
    fix: 'Correct the field.',
    check: '`kubectl nmi analyze`',
  },
  identity_not_owned: {
    means:
      'No AzureIdentityGrant gives the identity to the namespace of the pod, and the agent enforces owners.',
    fix: 'Have an administrator of the cluster add it to an AzureIdentityGrant; `kubectl nmi grants` prints what is missing.',
    check: '`kubectl get azureidentitygrants`, and `kubectl nmi grants` for what is missing.',
  },
  identity_unsupported: {
    means: 'The AzureIdentity has a type that this agent does not know.',
    fix: 'Use another type: docs/identities.md#types lists all, and what each needs.',
    check: '`kubectl get azureidentity NAME -o jsonpath={.spec.type}`',
  },
  selector_not_bound: {
    means: 'The request names an identity that the pod is not bound to.',
    fix: 'Correct AZURE_CLIENT_ID of the container, or bind that identity too.',
    check: '`kubectl nmi explain pod POD` lists the identities of the pod.',
  },
  identity_ambiguous: {
    means: 'Several identities are bound, the request names none, and the agent is strict.',
    fix: 'Set AZURE_CLIENT_ID in the container.',
    check: '`kubectl nmi explain pod POD` lists the identities of the pod.',
  },
  identity_not_assigned: {
    means:
      'Azure has not assigned the identity to the scale set of the node, or spec.clientID is no client id.',
    fix: 'Assign it: kubectl nmi identity assign IDENTITY shows the az lines for every node pool. On nodes that Karpenter makes, use type 3, and no chain that begins with a managed identity.',
    check:
      '`az vmss identity show` for the scale set of the node; `az identity list` for client ids. The object id, in the portal beside it, is none.',
  },
  resource_not_allowed: {
    means: 'The AzureIdentity is limited to resources, and the requested one is not among them.',
    fix: 'Add it to spec.allowedResources.',
    check: '`kubectl get azureidentity NAME -o jsonpath={.spec.allowedResources}`',
  },
  upstream_refused: {
    means: 'The metadata service of the node refused the request.',
    fix: "Read the text of the answer; it is the service's own.",
    check: 'Read the text of the service in the error.',
  },
  resource_refused: {
    means: 'The resource does not exist in Entra ID, or the application may not request it.',
    fix: 'Check the resource, and that its service principal is in the tenant.',
    check: 'Read the AADSTS code in the error.',
  },
  identity_refused: {
    means: 'Entra ID refuses the application: it does not exist in the tenant or is disabled.',
    fix: 'Check spec.clientID and spec.tenantID; of a chain, spec.application and spec.agentIdentity.',
    check: '`az ad sp show --id CLIENT_ID` in the tenant.',
  },
  credential_refused: {
    means:
      'Entra ID refuses the secret, certificate or token that proves the identity: wrong or expired.',
    fix: 'Renew a secret or certificate in its Secret; the agent takes the new one within a minute. Types 3 and 4 have none: the error says what is wrong with their token.',
    check:
      '`az ad app credential list --id CLIENT_ID`: end dates. For types 3 and 4, the AADSTS code in the error.',
  },
  credential_invalid: {
    means:
      'The Secret has no usable credential, the agent may not read what it needs, or the cluster does not let the service account use the identity.',
    fix: 'Correct the Secret. If the error names a missing right, an operator of the cluster gives it.',
    check:
      '`kubectl describe secret NAME`: the keys that the error names. For `federation: binding`, `az aks identity-binding list`.',
  },
  credential_missing: {
    means: 'The Secret or service account that the identity needs does not exist.',
    fix: 'Create it in the namespace of the AzureIdentity.',
    check: '`kubectl get secret,serviceaccount`',
  },
  credential_pending: {
    means:
      'The Secret or service account that the identity needs does not exist yet; the objects are younger than a minute.',
    fix: 'Wait a minute. If it lasts, create it in the namespace of the AzureIdentity.',
    check: '`kubectl get secret,serviceaccount`',
  },
  federation_refused: {
    means: 'Entra ID has no federated credential for this issuer and subject.',
    fix: 'Create it: az identity federated-credential create for a managed identity, az ad app federated-credential create for an application. kubectl nmi identity federate IDENTITY prints the line.',
    check:
      '`az identity federated-credential list` for a managed identity, `az ad app federated-credential list` for an application: issuer, subject and audience, letter by letter.',
  },
  federation_pending: {
    means:
      'Entra ID refuses the federated credential, for less than five minutes so far. It takes minutes to learn of a new one, and refuses a valid one now and then.',
    fix: 'Wait five minutes. If it lasts, create it: kubectl nmi identity federate IDENTITY shows the az line.',
    check:
      '`az identity federated-credential list`: issuer, subject and audience, letter by letter.',
  },
  policy_refused: {
    means: 'A policy of Entra ID (Conditional Access) refuses the token.',
    fix: 'Ask the administrators of the tenant; the answer has the trace id.',
    check: 'Read the AADSTS code in the error; the sign-in log has the trace id.',
  },
  upstream_throttled: {
    means: 'The metadata service or Entra ID answers 429, or too many fetches of this node wait.',
    fix: oneMoment,
    check: 'nmi_upstream_requests_total by outcome; the pods with the most requests.',
  },
  upstream_down: {
    means: 'The metadata service or Entra ID does not answer.',
    fix: 'SDKs retry. If it lasts, open the address that the answer names from the nodes: firewall, DNS, proxy.',
    check: 'nmi_upstream_requests_total by source; the way from the node to Entra ID.',
  },
  loop_detected: {
    means: 'The agent reached itself instead of the metadata service.',
    fix: 'Remove other redirects of 169.254.169.254 from the node.',
    check: '`iptables-save -t nat` on the node: rules for 169.254.169.254 that are not ours.',
  },
  caller_throttled: {
    means: 'The pod sends more requests than its share allows.',
    fix: 'Cache tokens in the application, as SDKs do when one credential object is kept.',
    check: 'The Events of the pod, and `nmi explain`: which limit it went beyond.',
  },
  internal_error: {
    means: 'The agent failed.',
    fix: 'Report it with the log of the agent: kubectl nmi sysdump',
    check: "The agent's log has the stack.",
  },
} as const satisfies Record<RefusalReason, AnswerCode>;
