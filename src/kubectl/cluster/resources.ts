/** The kinds that the plugin reads, by their names for kubectl. */

const group = 'aadpodidentity.k8s.io';

export const identityResources = {
  identities: `azureidentities.${group}`,
  bindings: `azureidentitybindings.${group}`,
  exceptions: `azurepodidentityexceptions.${group}`,
} as const;

export const identityGrants = `azureidentitygrants.${group}`;

export const workloadResources = [
  'deployments.apps',
  'statefulsets.apps',
  'daemonsets.apps',
  'cronjobs.batch',
  'jobs.batch',
] as const;
