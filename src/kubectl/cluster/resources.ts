/** The kinds that the plugin reads, by their names for kubectl. */

export const group = 'aadpodidentity.k8s.io';

export const identityResources = {
  identities: `azureidentities.${group}`,
  bindings: `azureidentitybindings.${group}`,
  exceptions: `azurepodidentityexceptions.${group}`,
} as const;

/** What the cluster's administrator grants to namespaces; cluster-scoped. */
export const identityGrants = `azureidentitygrants.${group}`;

/** Owners of pods; their pod templates contain the labels of the pods. */
export const workloadResources = [
  'deployments.apps',
  'statefulsets.apps',
  'daemonsets.apps',
  'cronjobs.batch',
  'jobs.batch',
] as const;
