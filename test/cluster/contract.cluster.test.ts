/** The contract of the Kubernetes API, on real servers. */
import assert from 'node:assert/strict';
import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openApi, type Api, type ApiAccess } from './support/api.ts';
import { contractTests, type ContractServer } from './support/contract.ts';
import { reflectorTests } from './support/reflector-contract.ts';
import { describeOnEveryVersion } from './support/on-clusters.ts';

const throttling = `
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: { name: throttled }
spec:
  type: Limited
  limited:
    nominalConcurrencyShares: 0
    lendablePercent: 0
    borrowingLimitPercent: 0
    limitResponse: { type: Reject }
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: { name: throttled }
spec:
  priorityLevelConfiguration: { name: throttled }
  matchingPrecedence: 2
  rules:
    - subjects:
        - { kind: ServiceAccount, serviceAccount: { namespace: default, name: throttled } }
      resourceRules:
        - { verbs: ['*'], apiGroups: ['*'], resources: ['*'], namespaces: ['*'], clusterScope: true }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: throttled }
rules:
  - { apiGroups: [aadpodidentity.k8s.io], resources: [azureidentities], verbs: [list, watch, create] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: throttled }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: throttled }
subjects:
  - { kind: ServiceAccount, name: throttled, namespace: default }
`;

describeOnEveryVersion('the contract of the Kubernetes API', (cluster) => {
  let unknown: Api | undefined;

  before(async () => {
    const { url, caPem } = cluster();
    unknown = openApi({ url, caPem, token: 'nobody' });
    const crds = join(import.meta.dirname, '../../deploy/crds.yaml');
    await cluster().applyOverHttp(await readFile(crds, 'utf8'));
    await served();
  });
  after(async () => {
    await unknown?.[Symbol.asyncDispose]();
  });

  /** A custom type answers 429 for a moment after it is created, and after each start. */
  async function served(): Promise<void> {
    const path = '/apis/aadpodidentity.k8s.io/v1/azureidentities';
    await eventually(() => cluster().admin.expect('GET', path), 30_000);
  }

  const server = (): ContractServer => ({
    api: cluster().admin,
    access: cluster().adminAccess,
    createNamespace: (name) => cluster().createNamespace(name),
    async forgetHistory() {
      // The compaction drops etcd's history, the restart drops the server's.
      await cluster().createNamespace('newer');
      await cluster().compact();
      await cluster().restart();
      await served();
    },
    async backUp() {
      await cluster().backUp();
      await served();
      return async () => {
        await cluster().restore();
        await served();
      };
    },
    async askUnknown(path) {
      if (unknown === undefined) throw new TypeError('not opened yet');
      return unknown.request('GET', path);
    },
    async throttle() {
      // A priority level without a share of the server admits one request at a time, and this one
      // never ends.
      const account = { namespace: 'default', name: 'throttled' };
      const { token } = await cluster().createServiceAccountClient(account);
      await cluster().applyOverHttp(throttling);
      const { url, caPem } = cluster();
      const access = { url, caPem, token };
      let endless = openEndlessRequest(access);
      await using somebody = openApi(access);
      const path = '/apis/aadpodidentity.k8s.io/v1/azureidentities?limit=1';
      await eventually(async () => {
        const { status } = await somebody.request('GET', path);
        if (status === 429) return;
        // This request may have started before the server used the level.
        endless.destroy();
        endless = openEndlessRequest(access);
        assert.fail(`${status}`);
      });
      return {
        access,
        async [Symbol.asyncDispose]() {
          endless.destroy();
          const flows = '/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/throttled';
          await cluster().admin.request('DELETE', flows);
        },
      };
    },
    askForbidden: (path) => cluster().anonymous.request('GET', path),
  });
  contractTests(server);
  reflectorTests(server);
});

/** A write without the body that it announces. */
function openEndlessRequest({ url, caPem, token = '' }: ApiAccess): ClientRequest {
  const path = '/apis/aadpodidentity.k8s.io/v1/namespaces/default/azureidentities';
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    'content-length': 100,
  };
  const endless = request(url + path, { method: 'POST', ca: caPem, agent: false, headers });
  // It ends when it is destroyed.
  endless.on('error', () => undefined);
  endless.flushHeaders();
  return endless;
}
