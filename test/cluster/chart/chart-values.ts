/** Values that set everything that the chart has. */

/** All values for NMI in the replaced chart's table, and the other contents of such a file. */
export const oldValues = {
  operationMode: 'managed',
  forceNamespaced: 'false',
  installMICException: 'true',
  customUserAgent: 'acme/1',
  image: { repository: 'registry.example/team', imagePullPolicy: 'Always' },
  imagePullSecrets: [{ name: 'pull' }],
  mic: { tag: 'v1.8.17', logVerbosity: 0 },
  adminsecret: {},
  nmi: {
    tag: '0.1.0',
    priorityClassName: '',
    logVerbosity: 4,
    loggingFormat: 'json',
    resources: {
      limits: { cpu: '200m', memory: '512Mi' },
      requests: { cpu: '100m', memory: '256Mi' },
    },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
    podAnnotations: { team: 'platform' },
    podLabels: { team: 'platform' },
    affinity: {},
    nodeSelector: { 'kubernetes.io/os': 'linux' },
    tolerations: [{ operator: 'Exists' }],
    ipTableUpdateTimeIntervalInSeconds: 60,
    micNamespace: 'default',
    probePort: '8085',
    retryAttemptsForCreated: '16',
    retryAttemptsForAssigned: '',
    findIdentityRetryIntervalInSeconds: 5,
    enableScaleFeatures: true,
    prometheusPort: '9091',
    blockInstanceMetadata: 'true',
    metadataHeaderRequired: true,
    allowNetworkPluginKubenet: false,
    kubeletConfig: '/etc/default/kubelet',
    setRetryAfterHeader: false,
    enableConntrackDeletion: false,
  },
  rbac: {
    enabled: true,
    allowAccessToSecrets: true,
    secretsNamespaces: ['shop'],
    pspEnabled: false,
    createUserFacingClusterRoles: true,
  },
  podMonitor: { enabled: true, labels: { release: 'prometheus' }, interval: '30s' },
  azureIdentities: {
    checkout: {
      namespace: 'shop',
      name: 'checkout',
      type: 1,
      clientID: '00000000-0000-0000-0000-000000000001',
      tenantID: '00000000-0000-0000-0000-000000000002',
      clientPassword: { name: 'checkout-secret', namespace: 'shop' },
      auxiliaryTenantIDs: ['00000000-0000-0000-0000-000000000003'],
      binding: { name: 'checkout-binding', selector: 'checkout' },
    },
  },
};

/** The values that only this chart has. */
export const newValues = {
  rbac: { allowFederation: true, federationNamespaces: ['shop', 'kube-system'] },
  serviceMonitor: { enabled: true },
  prometheusRule: {
    enabled: true,
    labels: { release: 'prometheus' },
    runbookBase: 'https://git.example/nmi/',
  },
  nmi: {
    cloud: 'usgovernment',
    workloadIdentity: true,
    allowMetadata: ['attested', 'loadbalancer'],
    addressStalenessLimit: '30m',
    rightsStalenessLimit: '2h',
    explainSocket: '/run/nmi.sock',
    allowNetworkPluginKubenet: true,
    entraCaFile: '/etc/entra/ca.pem',
    env: [{ name: 'HTTPS_PROXY', value: 'http://proxy.example:3128' }],
    extraVolumes: [{ name: 'entra-ca', configMap: { name: 'entra-ca' } }],
    extraVolumeMounts: [{ name: 'entra-ca', mountPath: '/etc/entra', readOnly: true }],
  },
  azureIdentities: {
    reports: {
      type: 0,
      clientID: '00000000-0000-0000-0000-000000000004',
      resourceID:
        '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/r',
      binding: { selector: 'reports' },
    },
    federated: {
      type: 3,
      clientID: '00000000-0000-0000-0000-000000000005',
      tenantID: '00000000-0000-0000-0000-000000000002',
      federation: 'node',
      allowedResources: ['https://vault.azure.net', 'https://storage.azure.com/'],
      binding: { selector: 'f', serviceAccount: 'robot' },
    },
  },
};
