/** The contract of the Kubernetes API, on real servers. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { eventually } from '../../src/lab/eventually.ts';
import { openApi, type Api } from './support/api.ts';
import { contractTests, type ContractServer } from './support/contract.ts';
import { reflectorTests } from './support/reflector-contract.ts';
import { describeOnClusters } from './support/on-clusters.ts';

describeOnClusters('the contract of the Kubernetes API', (cluster) => {
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

  /** A custom type answers 429 for a moment after it was made, and after each start. */
  async function served(): Promise<void> {
    const path = '/apis/aadpodidentity.k8s.io/v1/azureidentities';
    await eventually(() => cluster().admin.expect('GET', path), 30_000);
  }

  const server = (): ContractServer => ({
    api: cluster().admin,
    access: cluster().adminAccess,
    createNamespace: (name) => cluster().createNamespace(name),
    async forgetHistory() {
      // etcd forgets by the compaction, the server's memory by the restart.
      await cluster().createNamespace('newer');
      await cluster().compact();
      await cluster().restart();
      await served();
    },
    async askUnknown(path) {
      if (unknown === undefined) throw new TypeError('not opened yet');
      return unknown.request('GET', path);
    },
    askForbidden: (path) => cluster().anonymous.request('GET', path),
  });
  contractTests(server);
  reflectorTests(server);
});
