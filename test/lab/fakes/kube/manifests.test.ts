import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzurePodIdentityException,
  createPodManifest,
  createSecret,
  createServiceAccount,
} from '../../../../lab/fakes/kube/manifests.ts';

const createdAtWallMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678);

describe('manifests', () => {
  test('a running pod is as the API server stores it', () => {
    const pod = createPodManifest({
      name: 'web',
      namespace: 'team-a',
      uid: 'u1',
      createdAtWallMs,
      nodeName: 'lab-node',
      ips: ['10.244.0.2', 'fd10:244::2'],
      labels: { app: 'web' },
      binding: 'web',
    });
    assert.deepEqual(pod, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: 'web',
        namespace: 'team-a',
        uid: 'u1',
        creationTimestamp: '2026-01-02T03:04:05Z',
        labels: { app: 'web', aadpodidbinding: 'web' },
      },
      spec: {
        nodeName: 'lab-node',
        serviceAccountName: 'default',
        containers: [{ name: 'main', image: 'registry.example/lab:1' }],
      },
      status: {
        phase: 'Running',
        hostIP: '10.224.0.4',
        podIP: '10.244.0.2',
        podIPs: [{ ip: '10.244.0.2' }, { ip: 'fd10:244::2' }],
      },
    });
  });

  test('a pod without an address has no address fields, one on the host network has its field', () => {
    const waiting = createPodManifest({ name: 'a', nodeName: 'n', ips: [], phase: 'Pending' });
    assert.deepEqual(waiting.status, { phase: 'Pending', hostIP: '10.224.0.4' });
    assert.equal(waiting.metadata.labels, undefined);
    const host = createPodManifest({
      name: 'a',
      nodeName: 'n',
      ips: ['1.2.3.4'],
      hostNetwork: true,
    });
    assert.equal(host.spec.hostNetwork, true);
    const ending = createPodManifest({ name: 'a', nodeName: 'n', ips: [], terminating: true });
    assert.match(ending.metadata.deletionTimestamp ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  });

  test('the custom resources have the field names of their definitions', () => {
    const identity = createAzureIdentity({ name: 'web', uid: 'u', createdAtWallMs, clientId: 'c' });
    assert.deepEqual(identity, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: {
        name: 'web',
        namespace: 'default',
        uid: 'u',
        creationTimestamp: '2026-01-02T03:04:05Z',
      },
      spec: { type: 0, clientID: 'c', resourceID: '' },
    });
    const application = createAzureIdentity({
      name: 'app',
      type: 1,
      clientId: 'c',
      tenantId: 't',
      clientPassword: { name: 's', namespace: 'default' },
      auxiliaryTenantIds: ['u'],
      adEndpoint: 'https://login.microsoftonline.us',
      federation: 'node',
    });
    assert.deepEqual(application.spec, {
      type: 1,
      clientID: 'c',
      resourceID: '',
      tenantID: 't',
      clientPassword: { name: 's', namespace: 'default' },
      auxiliaryTenantIDs: ['u'],
      adEndpoint: 'https://login.microsoftonline.us',
      federation: 'node',
    });
    const binding = createAzureIdentityBinding({ name: 'b', azureIdentity: 'web', selector: 's' });
    assert.equal(binding.kind, 'AzureIdentityBinding');
    assert.deepEqual(binding.spec, { azureIdentity: 'web', selector: 's' });
    const exception = createAzurePodIdentityException({ name: 'e', podLabels: { app: 'csi' } });
    assert.equal(exception.kind, 'AzurePodIdentityException');
    assert.deepEqual(exception.spec, { podLabels: { app: 'csi' } });
    assert.notEqual(binding.metadata.uid, exception.metadata.uid);
  });

  test('a Secret holds texts and bytes in base64, a service account its annotations', () => {
    const secret = createSecret({
      name: 's',
      uid: 'u',
      createdAtWallMs,
      data: { clientSecret: 'pass', certificate: new Uint8Array([0xff, 0]) },
    });
    const metadata = { namespace: 'default', creationTimestamp: '2026-01-02T03:04:05Z' };
    assert.deepEqual(secret, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 's', uid: 'u', ...metadata },
      type: 'Opaque',
      data: { clientSecret: 'cGFzcw==', certificate: '/wA=' },
    });
    const account = createServiceAccount({
      name: 'a',
      uid: 'v',
      createdAtWallMs,
      labels: { l: '1' },
      annotations: { 'azure.workload.identity/client-id': 'c' },
    });
    assert.deepEqual(account, {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: {
        name: 'a',
        uid: 'v',
        ...metadata,
        labels: { l: '1' },
        annotations: { 'azure.workload.identity/client-id': 'c' },
      },
    });
  });
});
