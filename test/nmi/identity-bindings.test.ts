/** The whole agent with identity bindings of AKS: what pods get, and what is asked of whom. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createIdentityUse, createServiceAccount } from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { ask } from '../support/ask.ts';
import {
  bindApplication,
  bindPod,
  openEntraAgent,
  podAccount,
  type EntraAgent,
  type EntraTestBed,
} from '../support/entra-agent.ts';

const tokenPath = '/metadata/identity/oauth2/token?api-version=2018-02-01';

async function bound(testBed: EntraTestBed): Promise<void> {
  bindPod(testBed.kube);
  await bindApplication(testBed, 'federated_binding', 'bound');
}

/** The token request of the pod for a resource. */
function fetchFor(agent: EntraAgent, resource: string) {
  return ask(agent.client('127.0.0.11'), `${tokenPath}&resource=https://${resource}.example`);
}

describe('an identity binding', () => {
  it('survives a new service account of the same name: the refused token is made anew, once', async () => {
    await using agent = await openEntraAgent({}, bound);
    const { kube, identityBindings } = agent;
    assert.equal((await fetchFor(agent, 'one')).status, 200);
    assert.equal((await fetchFor(agent, 'two')).status, 200);
    kube.delete({ kind: 'ServiceAccount', ...podAccount });
    kube.apply(createServiceAccount(podAccount));
    assert.equal((await fetchFor(agent, 'three')).status, 200);
    const statuses = identityBindings.requests.map(({ status }) => status);
    assert.deepEqual(statuses, [200, 200, 401, 200]);
    const made = kube.requests.filter(({ url }) => url.endsWith('/robot/token'));
    assert.equal(made.length, 2, 'one token for each account');
    assert.deepEqual(
      kube.requests.filter(({ url }) => url.includes('oauth2')),
      [],
      'under the ordinary name',
    );
  });

  it('gives nothing any more when the right has ended, but what is cached', async () => {
    await using agent = await openEntraAgent({}, bound);
    const { kube, identityBindings } = agent;
    assert.equal((await fetchFor(agent, 'one')).status, 200);
    const [clientId = ''] = identityBindings.tenants.keys();
    const names = createIdentityUse(clientId, podAccount) as readonly {
      readonly kind: string;
      readonly metadata: { readonly name: string };
    }[];
    for (const { kind, metadata } of names) kube.delete({ kind, name: metadata.name });
    assert.equal((await fetchFor(agent, 'one')).status, 200, 'from the cache');
    const refused = await fetchFor(agent, 'two');
    assert.equal(refused.status, 400);
    assert.match(refused.text, /may not use the managed identity/);
    for (const object of createIdentityUse(clientId, podAccount)) kube.apply(object);
    await eventually(async () => {
      assert.equal((await fetchFor(agent, 'two')).status, 200);
    }, 8_000);
  });

  it('of another cluster, by the option, is refused before anything is sent', async () => {
    await using agent = await openEntraAgent({ 'aks-cluster-id': 'other' }, bound);
    const { status, text } = await fetchFor(agent, 'one');
    assert.equal(status, 400);
    assert.match(text, /certificate is of cluster 7e57\w+, not of --aks-cluster-id other/);
    assert.deepEqual(agent.identityBindings.requests, []);
  });
});
