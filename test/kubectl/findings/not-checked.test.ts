import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { viewAgent } from '../../../src/kubectl/cluster/agents.ts';
import { losses } from '../../../src/kubectl/cluster/unread.ts';
import {
  tenantID,
  agentWith,
  assess,
  verdictOf,
  lossesOf,
  web,
  two,
  statusOf,
} from '../support/assess.ts';
import { clientA, createAgentPod, createIdentity, createPod } from '../support/recorded-kubectl.ts';

describe('what a verdict does not know', () => {
  it('is what only Azure knows of the identity', () => {
    const of = (spec: object, status = {}) =>
      lossesOf(web, { identities: [{ ...createIdentity('orders', spec), status }] });
    const entra = { clientID: clientA, tenantID };
    const password = { name: 'sp', namespace: 'shop' };
    assert.deepEqual(of({ clientID: clientA }), ['assignment of the identity in Azure']);
    assert.deepEqual(of({ ...entra, type: 3 }), ['federated credential in Entra ID']);
    assert.deepEqual(of({ ...entra, type: 1, clientPassword: password }), [
      'Secret shop/sp',
      'whether Entra ID accepts the secret',
    ]);
    assert.deepEqual(
      of({ ...entra, type: 1, clientPassword: password }, statusOf('True', 'ok')),
      ['whether Entra ID accepts the secret'],
      'the status shows that the Secret was read',
    );
  });

  it('is what the user may not read, if it can change the verdict', () => {
    const unread = Object.values(losses).map((loses) => ({ loses, what: 'x', why: 'y' }));
    const granted = lossesOf(web, { unread }).slice(1);
    assert.deepEqual(granted, [
      ...[losses.policies, losses.grants, losses.agents, losses.twins, losses.nodes],
    ]);
    const off = { unread, agents: agentWith('--identity-owners=off') };
    assert.ok(!lossesOf(web, off).includes(losses.grants));
    const refused = lossesOf(createPod('web'), { unread });
    assert.ok(refused.includes(losses.elsewhere) && refused.includes(losses.workloads));
    assert.ok(!refused.includes(losses.policies));
  });

  it('is the options of an agent that is not verified, or has some of another version', () => {
    const { unread } = assess(web, { agents: agentWith('--of-a-later-version=1') });
    const unproven = [viewAgent(createAgentPod('node-1'))];
    assert.deepEqual(lossesOf(web, { agents: unproven }).slice(1), [losses.agents]);
    assert.match(verdictOf(web, { ...two, agents: unproven }), /^unknown /);
    assert.deepEqual(
      unread.map(({ what }) => what),
      [
        'see whether Azure assigned it to the node',
        'know the options of the agent kube-system/nmi-node-1',
      ],
    );
  });
});
