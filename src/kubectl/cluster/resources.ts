/** The kinds that the plugin reads, as kubectl wants them called. */

export const group = 'aadpodidentity.k8s.io';

export const identityResources = {
  identities: `azureidentities.${group}`,
  bindings: `azureidentitybindings.${group}`,
  exceptions: `azurepodidentityexceptions.${group}`,
} as const;

/** What the cluster's administrator gives to namespaces; of the cluster. */
export const identityGrants = `azureidentitygrants.${group}`;

/** Owners of pods whose template carries the labels of the pods. */
export const workloadResources = [
  'deployments.apps',
  'statefulsets.apps',
  'daemonsets.apps',
  'cronjobs.batch',
  'jobs.batch',
] as const;

/** By which the pods of the agent are found, whichever manifest or chart installed them. */
export const agentSelector = 'component=nmi';
