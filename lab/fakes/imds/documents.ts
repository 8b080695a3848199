/** The fake IMDS's data about the machine: a managed cluster's node, in the documented format. */
import { createNodeIdentity, labSubscriptionId } from '../identity.ts';

/** Newest last, as `/metadata/versions` lists them. */
export const instanceApiVersions: readonly string[] = [
  '2017-03-01',
  '2017-04-02',
  '2017-08-01',
  '2017-12-01',
  '2018-02-01',
  '2018-04-02',
  '2018-10-01',
  '2019-02-01',
  '2019-03-11',
  '2019-04-30',
  '2019-06-01',
  '2019-06-04',
  '2019-08-01',
  '2019-08-15',
  '2019-11-01',
  '2020-06-01',
  '2020-07-15',
  '2020-09-01',
  '2020-10-01',
  '2020-12-01',
  '2021-01-01',
  '2021-02-01',
  '2021-03-01',
  '2021-05-01',
  '2021-10-01',
  '2021-11-01',
  '2021-11-15',
  '2021-12-13',
  '2023-07-01',
];

export const instanceDocument = {
  compute: {
    azEnvironment: 'AzurePublicCloud',
    customData: '',
    evictionPolicy: '',
    isHostCompatibilityLayerVm: 'false',
    licenseType: '',
    location: 'westeurope',
    name: 'aks-lab-vmss_0',
    offer: '',
    osType: 'Linux',
    placementGroupId: '',
    platformFaultDomain: '0',
    platformUpdateDomain: '0',
    priority: '',
    provider: 'Microsoft.Compute',
    publisher: '',
    resourceGroupName: 'MC_rg-lab_lab_westeurope',
    resourceId: `${createNodeIdentity().resourceId}/virtualMachines/0`,
    sku: '',
    subscriptionId: labSubscriptionId,
    tags: 'aks-managed-poolName:lab',
    version: '202606.01.0',
    vmId: '7e570000-1ab0-4000-8000-000000000003',
    vmScaleSetName: 'aks-lab-vmss',
    vmSize: 'Standard_D2s_v5',
    zone: '',
  },
  network: {
    interface: [
      {
        ipv4: {
          ipAddress: [{ privateIpAddress: '10.224.0.4', publicIpAddress: '' }],
          subnet: [{ address: '10.224.0.0', prefix: '24' }],
        },
        ipv6: { ipAddress: [] },
        macAddress: '000D3A000001',
      },
    ],
  },
} as const;

export const scheduledEventsDocument = { DocumentIncarnation: 1, Events: [] } as const;

export const loadBalancerDocument = {
  loadbalancer: {
    publicIpAddresses: [{ frontendIpAddress: '203.0.113.7', privateIpAddress: '10.224.0.4' }],
    inboundRules: [],
    outboundRules: [],
  },
} as const;

export const attestedDocument = { encoding: 'pkcs7', signature: 'bGFiLXNpZ25hdHVyZQ==' } as const;
