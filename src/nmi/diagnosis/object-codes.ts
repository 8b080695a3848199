/** The other half of the code table: findings that no answer names. */

interface ObjectCode {
  readonly severity: 'error' | 'warning' | 'info';
  readonly means: string;
  readonly fix: string;
}

/** Of the chart, or crds.yaml of a release: Helm itself leaves definitions as they are. */
export const applyDefinitions =
  'helm show crds oci://REGISTRY/charts/entra-pod-identity | kubectl apply -f -';

export const objectCodes = {
  label_on_owner: {
    severity: 'error',
    means: 'A workload has the label aadpodidbinding itself, and its pod template has not.',
    fix: 'Move the label to the metadata of the pod template.',
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
    fix: 'Allow egress to 169.254.25.79/32, TCP ports 2579 and 2580.',
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
  exception_broad: {
    severity: 'warning',
    means: 'An exception matches most pods of its namespace.',
    fix: 'Name a label in spec.podLabels that only those pods have which need the identities of the node.',
  },
  exception_unused: {
    severity: 'info',
    means: 'An exception matches no pod of its namespace.',
    fix: 'Check spec.podLabels, or delete it.',
  },
  selector_unusable: {
    severity: 'error',
    means:
      'A binding has a selector that matches no pod: it is empty or no value of a label, or more than 200 bindings have it.',
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
  type_0_on_karpenter: {
    severity: 'warning',
    means:
      'A user-assigned identity (type 0) is bound to pods on nodes that Karpenter makes. Azure assigns it to none of them, unless the options of Karpenter name it.',
    fix: 'Use type 3: kubectl nmi migrate to-federation. See docs/nodes-that-come-and-go.md.',
  },
  object_unusable: {
    severity: 'error',
    means: 'An object has a field of the wrong type, and the agent leaves it out.',
    fix: 'Correct the field.',
  },
  pod_on_windows: {
    severity: 'error',
    means: 'A pod with a binding or an exception is for Windows nodes, where no agent runs.',
    fix: 'Use Workload Identity for pods on Windows nodes.',
  },
  agent_missing: {
    severity: 'error',
    means: 'A node has no agent: its pods get no tokens, or those of the node.',
    fix: 'Look at the DaemonSet: its node selector, tolerations and events.',
  },
  agent_not_ready: {
    severity: 'error',
    means: 'The agent of a node is not ready.',
    fix: 'Its log shows why: kubectl logs AGENT -c nmi',
  },
  agents_on_node: {
    severity: 'error',
    means: 'A node has two agents, which cannot share its ports.',
    fix: 'Remove one of the DaemonSets.',
  },
  agent_versions: {
    severity: 'warning',
    means: 'Agents of several versions run.',
    fix: 'Wait for the rollout: kubectl rollout status daemonset/nmi',
  },
  old_nmi: {
    severity: 'error',
    means:
      'The NMI of aad-pod-identity still runs; where it is alone, it opens the node when it stops.',
    fix: 'Install this agent beside it, then delete its DaemonSet: see docs/upgrade.md.',
  },
  old_mic: {
    severity: 'warning',
    means: 'The MIC of aad-pod-identity still runs; managed mode has no use for it.',
    fix: 'Remove its Deployment.',
  },
  crd_missing: {
    severity: 'error',
    means: 'The cluster lacks a custom resource definition.',
    fix: applyDefinitions,
  },
  crd_old: {
    severity: 'warning',
    means:
      'A custom resource definition lacks fields of this version: the API server drops them from objects.',
    fix: applyDefinitions,
  },
  agent_rights: {
    severity: 'error',
    means: 'The service account of the agent lacks a right.',
    fix: 'Apply the ClusterRole of the release.',
  },
  agent_rights_wide: {
    severity: 'warning',
    means: 'The service account of the agents has a right that reaches beyond their nodes.',
    fix: 'Upgrade the chart. Before Kubernetes 1.36, list the namespaces: rbac.federationNamespaces, rbac.secretsNamespaces.',
  },
  owners_not_enforced: {
    severity: 'warning',
    means:
      'Agents do not enforce who may use an identity: see docs/security.md#mode-of-an-installation.',
    fix: 'Apply what kubectl nmi grants prints, then set nmi.identityOwners=enforce.',
  },
  part_not_ready: {
    severity: 'warning',
    means: 'The boot guard of a node, or the writer of status conditions, does not run.',
    fix: 'Its events show why: kubectl -n kube-system describe pod POD',
  },
  kernel_old: {
    severity: 'info',
    means: 'The kernel of the node is older than 5.10: the agent uses iptables there.',
    fix: 'Update the node image.',
  },
  image_not_pulled: {
    severity: 'error',
    means: 'A node cannot pull the image of the agent.',
    fix: 'Check the name of the image and the rights of the node at its registry.',
  },
  nodes_missing: {
    severity: 'warning',
    means: 'The cluster has no Linux node that an agent could run on.',
    fix: 'Add a node pool.',
  },
} as const satisfies Record<string, ObjectCode>;
