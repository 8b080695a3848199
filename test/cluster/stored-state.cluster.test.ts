/** A server that suites share is for each of them as after its start. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { describeOnOwnServer } from './support/on-clusters.ts';
import { readStoredState, restoreStoredState } from './support/stored-state.ts';

const viewers = '/apis/rbac.authorization.k8s.io/v1/clusterroles/view';
const identities = '/apis/aadpodidentity.k8s.io/v1/namespaces/left/azureidentities';
const identityOf = (name: string): string => `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: ${name}, namespace: left }
spec: { type: 0, clientID: 7e570000-1ab0-4000-8000-000000000001, resourceID: /subscriptions/7e570000-1ab0-4000-8000-000000000002/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i }
`;
const refuseNamespace = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: refuse }
spec:
  matchConstraints:
    resourceRules: [{ apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [namespaces] }]
  validations: [{ expression: 'false' }]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: refuse }
spec: { policyName: refuse, validationActions: [Deny] }
`;
const newNamespace = '/api/v1/namespaces?dryRun=All';
const named = { metadata: { name: 'new' } };
describeOnOwnServer('a cluster of the tests', (cluster) => {
  it('is as after its start for the next suite', async () => {
    const { etcd, admin } = cluster();
    const crds = await readFile(join(import.meta.dirname, '../../deploy/crds.yaml'), 'utf8');
    const atStart = await readStoredState(etcd, admin);
    for (const suite of ['first', 'second']) {
      await cluster().createNamespace('left');
      await cluster().applyOverHttp(crds);
      await eventually(() => cluster().applyOverHttp(identityOf(suite)));
      // For a moment, the storage of a new kind answers 429.
      const { items } = await eventually(() => admin.expect('GET', identities));
      assert.deepEqual(
        items?.map(({ metadata }) => metadata.name),
        [suite],
      );
      await admin.expect('DELETE', viewers);
      await cluster().applyOverHttp(refuseNamespace);
      await eventually(async () => {
        const refused = await admin.request('POST', newNamespace, named);
        assert.equal(refused.status, 422);
      });
      await restoreStoredState(etcd, admin, atStart);
      await admin.expect('POST', newNamespace, named);
      assert.deepEqual(await readStoredState(etcd, admin), atStart);
      assert.equal((await admin.request('GET', identities)).status, 404);
      await admin.expect('GET', viewers);
    }
  });
});
