import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import { bound, tenantID, agentWith, verdictOf, web, two, grants } from '../support/assess.ts';
import { clientA, createObject, createPod } from '../support/recorded-kubectl.ts';

describe('an option of the agent that is not known', () => {
  it('makes the verdict unknown if it decides', () => {
    const unseen = { agents: undefined };
    assert.match(
      verdictOf(web, { ...two, ...unseen }),
      /^unknown gets a token .*; gets 400 identity_ambiguous if the agent has --strict-identity$/,
    );
    assert.match(verdictOf(web, { ...unseen, grants }), /^unknown .* --identity-owners=enforce$/);
    assert.match(verdictOf(web, { ...unseen, grants: [] }), /^granted /, 'no agent enforces none');
    assert.match(verdictOf(web, { ...two, grants }), /^granted /, 'the agent has neither option');
    const host = createPod('web', { ...bound, spec: { hostNetwork: true } });
    assert.match(
      verdictOf(host),
      /^unknown .*\(host network\) if the agent has --redirect=iptables$/,
    );
    assert.match(verdictOf(host, { agents: agentWith('--redirect=ebpf') }), /^granted /);
    assert.match(
      verdictOf(host, { agents: agentWith('--redirect=iptables') }),
      /^unknown gets the answer/,
    );
    const plain = createPod('web', { spec: { hostNetwork: true } });
    const ofNode = "gets a token of the node's own identities (host network)";
    assert.equal(verdictOf(plain), `granted ${ofNode}`, 'whichever redirect the agent has');
    const unproven = [{ ...agentWith('--redirect=ebpf')[0], isVerified: false }] as ReturnType<
      typeof agentWith
    >;
    assert.match(
      verdictOf(plain, { agents: unproven }),
      /^unknown .* if the agent has --host-network=refuse$/,
    );
    const account = { labels: { 'azure.workload.identity/use': 'true' } };
    const annotations = {
      'azure.workload.identity/client-id': clientA,
      'azure.workload.identity/tenant-id': tenantID,
    };
    const accounts = [createObject('ServiceAccount', 'default', {}, { annotations }, 'v1')];
    assert.equal(
      verdictOf(createPod('web', account), { ...unseen, accounts }),
      `unknown gets 400 no_binding_label; gets a token of the application of service account default, client id ${clientA} (by service account) if the agent has --workload-identity`,
    );
  });

  it('is the owners’ mode for an exception, whose grant no status shows', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'x', { podLabels: { app: 'addon' } }),
    ];
    const addon = createPod('addon', { labels: { app: 'addon' } });
    const of = (agents: Snapshot['agents'], given: Snapshot['grants']) =>
      verdictOf(addon, { exceptions, agents, grants: given });
    const node = "a token of the node's own identities (exception x)";
    const lacking = 'no AzureIdentityGrant gives its namespace the identities of the node';
    const enforcing = agentWith('--identity-owners=enforce');
    assert.equal(
      of(enforcing, undefined),
      `unknown gets ${node}; gets 400 identity_not_owned if ${lacking}`,
    );
    assert.equal(
      of(undefined, undefined),
      `unknown gets ${node}; gets 400 identity_not_owned if the agent has --identity-owners=enforce and ${lacking}`,
    );
    assert.equal(
      of(undefined, []),
      `unknown gets ${node}; gets 400 identity_not_owned if the agent has --identity-owners=enforce`,
    );
    assert.equal(of(enforcing, []), 'refused gets 400 identity_not_owned');
    assert.equal(of(agentWith('--identity-owners=warn'), undefined), `granted gets ${node}`);
    const spec = { namespaces: ['shop'], nodeIdentities: true };
    const granting = [createObject('AzureIdentityGrant', 'g', spec, { namespace: '' })];
    assert.equal(of(enforcing, granting), `granted gets ${node}`);
    assert.equal(of(undefined, granting), `granted gets ${node}`);
    assert.match(verdictOf(web, { agents: enforcing, grants: undefined }), /^granted /);
  });
});
