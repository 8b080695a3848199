/** The contract of the Kubernetes API, on the lab's fake of it. */
import { after, before, describe } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openFakeKube, type FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import { openApi, type Api } from './support/api.ts';
import { contractTests, type ContractServer } from './support/contract.ts';
import { reflectorTests } from './support/reflector-contract.ts';

describe('the contract of the Kubernetes API (fake)', () => {
  const open = new AsyncDisposableStack();
  let fake: FakeKube | undefined;
  let api: Api | undefined;

  before(async () => {
    fake = open.use(await openFakeKube());
    api = open.use(openApi({ url: fake.url }));
  });
  after(() => open.disposeAsync());

  const server = (): ContractServer => {
    if (fake === undefined || api === undefined) throw new TypeError('not opened yet');
    const kube = fake;
    const everything = api;
    return {
      api: everything,
      access: { url: kube.url },
      async createNamespace(name) {
        kube.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
        const metadata = { namespace: name, name: 'default' };
        kube.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata });
      },
      async forgetHistory() {
        kube.compact();
      },
      async backUp() {
        const restore = kube.backUp();
        return async () => {
          restore();
          // Connections that were kept have ended.
          await eventually(() => everything.expect('GET', '/api/v1/pods'));
        };
      },
      async askUnknown(path) {
        kube.faults.requiredToken = 'somebody';
        try {
          return await everything.request('GET', path);
        } finally {
          kube.faults.clear();
        }
      },
      async askForbidden(path) {
        kube.faults.failNext(1, 403);
        return everything.request('GET', path);
      },
      async throttle() {
        kube.faults.throttledToken = 'throttled';
        return {
          access: { url: kube.url, token: 'throttled' },
          async [Symbol.asyncDispose]() {
            kube.faults.throttledToken = undefined;
          },
        };
      },
    };
  };
  contractTests(server);
  reflectorTests(server);
});
