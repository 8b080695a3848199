import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
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
});
