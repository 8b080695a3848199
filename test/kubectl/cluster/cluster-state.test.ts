import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { defaultConfig } from '../../../src/kubectl/cluster/agents.ts';
import { createClusterState } from '../../../src/kubectl/cluster/cluster-state.ts';
import type { Config } from '../../../src/nmi/config/config.ts';
import {
  clientA,
  clientB,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

const use = { 'azure.workload.identity/use': 'true' };

function viewOf(
  labels: Readonly<Record<string, string>>,
  config: Partial<Config> = {},
  clientId = clientB,
  canReadGrants = true,
) {
  const annotations = {
    'azure.workload.identity/client-id': clientId,
    'azure.workload.identity/tenant-id': 'contoso.example',
  };
  return createClusterState(
    createSnapshot({
      pods: [createPod('web', { labels })],
      identities: [createIdentity('orders'), createIdentity('broken', { type: 'x' })],
      accounts: [createObject('ServiceAccount', 'default', {}, { annotations })],
      grants: canReadGrants ? [] : undefined,
    }),
    { ...defaultConfig, ...config },
    nowWallMs,
  );
}

function outcomeOf(view: ReturnType<typeof viewOf>) {
  const explanation = view.explainPod(createPod('web'));
  return explanation?.requests[0]?.outcome;
}

describe('a snapshot as the agent sees it', () => {
  it('gives the same grants as the agent, and ignores the same objects', () => {
    const view = viewOf({ aadpodidbinding: 'orders' });
    assert.equal(outcomeOf(view)?.kind, 'granted');
    assert.deepEqual(
      view.unusable.map(({ kind, title, reason }) => [kind, title, reason]),
      [['AzureIdentity', 'shop/broken', 'spec.type is not an integer']],
    );
  });

  it('has no other pods', () => {
    const view = viewOf({});
    assert.equal(view.explainPod(createPod('x')), undefined);
  });

  it('finds the owner of an identity, unless the user may not read grants', () => {
    const of = (canReadGrants: boolean) =>
      outcomeOf(
        viewOf(
          { aadpodidbinding: 'orders' },
          { identityOwners: 'enforce' },
          clientB,
          canReadGrants,
        ),
      );
    assert.equal(of(true)?.kind, 'refused');
    assert.equal(of(false)?.kind, 'granted');
    const own = { namespaces: ['shop'], clientIDs: [clientA] };
    const granted = createClusterState(
      createSnapshot({
        pods: [createPod('web', { labels: { aadpodidbinding: 'orders' } })],
        grants: [createObject('AzureIdentityGrant', 'shop', own, { namespace: '' })],
      }),
      { ...defaultConfig, identityOwners: 'enforce' },
      nowWallMs,
    );
    assert.equal(outcomeOf(granted)?.kind, 'granted');
  });

  it('knows the redirect of an agent only if its option names it', () => {
    const modeOf = (redirect: Config['redirect']) =>
      viewOf({}, { redirect }).explainPod(createPod('web'))?.node.redirect.mode;
    assert.deepEqual((['auto', 'pinned', 'iptables', 'ebpf'] as const).map(modeOf), [
      'unknown',
      'unknown',
      'iptables',
      'ebpf',
    ]);
  });

  it('follows the options of the agent', () => {
    assert.equal(outcomeOf(viewOf(use))?.kind, 'refused');
    assert.equal(outcomeOf(viewOf(use, { workloadIdentity: true }))?.kind, 'granted');
    assert.equal(outcomeOf(viewOf(use, { workloadIdentity: true }, ''))?.kind, 'refused');
  });
});
