/** The contract of the Kubernetes API, on the lab's fake of it. */
import { after, before, describe } from 'node:test';
import { openFakeKube, type FakeKube } from '../../src/lab/fake-kube.ts';
import { openApi, type Api } from './support/api.ts';
import { contractTests } from './support/contract.ts';

describe('the contract of the Kubernetes API (fake)', () => {
  const open = new AsyncDisposableStack();
  let fake: FakeKube | undefined;
  let api: Api | undefined;

  before(async () => {
    fake = open.use(await openFakeKube());
    api = open.use(openApi({ url: fake.url }));
  });
  after(() => open.disposeAsync());

  contractTests(() => {
    if (fake === undefined || api === undefined) throw new TypeError('not opened yet');
    const server = fake;
    const everything = api;
    return {
      api: everything,
      async createNamespace(name) {
        server.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
        const metadata = { namespace: name, name: 'default' };
        server.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata });
      },
      async forgetHistory() {
        server.compact();
      },
      async askUnknown(path) {
        server.faults.requiredToken = 'somebody';
        try {
          return await everything.request('GET', path);
        } finally {
          server.faults.clear();
        }
      },
      async askForbidden(path) {
        server.faults.failNext(1, 403);
        return everything.request('GET', path);
      },
    };
  });
});
